//! `holdfastd product` and `service`: what is bought, and what users are given of it, through the API of the running
//! server.

use crate::cli::accounts::{Output, find, print_json};
use crate::cli::quota::{Bound, size};
use crate::cli::tenant::{self, find_tenant, is_id, quoted};
use crate::cli::{CommandError, table};
use crate::config::CommonSettings;
use crate::local::LocalServer;
use api::members::Member;
use api::services::{
    Allocation, Allocations, BuyService, ExportTerms, OrderService, Product, ProductTerms, ProductUnit, Products,
    Service, ServiceContact, ServiceContacts, ServiceState, Services, SetAllocation, SetContact, SetLicence,
};
use clap::{Args, Subcommand, ValueEnum};
use std::io::{self, Write};

#[derive(Subcommand, Debug)]
pub(crate) enum ProductCommand {
    /// List products.
    List(Output),
    /// Make a product.
    #[command(after_help = "Example:\n  \
        holdfastd product add archive --unit gib --price-minor 20 --currency EUR --overage-percent 10")]
    Add(Box<AddProduct>),
}

#[derive(Args, Debug)]
pub(crate) struct AddProduct {
    /// Unique name.
    name: String,
    /// By what it is sold.
    #[arg(long, value_enum, default_value = "gib")]
    unit: UnitName,
    /// Price of one unit and term, in the currency's smallest unit.
    #[arg(long, default_value_t = 0)]
    price_minor: i64,
    /// ISO 4217.
    #[arg(long, default_value = "EUR")]
    currency: String,
    /// Most users that a trial protects.
    #[arg(long, default_value_t = 5)]
    trial_users: i64,
    /// How long a trial is good, days.
    #[arg(long, default_value_t = 30)]
    trial_days: i64,
    /// How long a paid licence is good at most, months.
    #[arg(long, default_value_t = 12)]
    term_months: i64,
    /// Space above the quantity before uploads are refused, percent.
    #[arg(long, default_value_t = 0)]
    overage_percent: i64,
    /// How long the data of an ended service is kept, days.
    #[arg(long, default_value_t = 60)]
    kept_days: i64,
    /// Days from one export of a database to the next.
    #[arg(long, default_value_t = 28)]
    export_wait_days: i64,
    /// Days for which an export is there to be downloaded.
    #[arg(long, default_value_t = 10)]
    export_kept_days: i64,
    /// Exports need no release by the operator.
    #[arg(long)]
    export_automatically: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum UnitName {
    /// Space.
    Gib,
    /// Computers.
    Computer,
    /// Users.
    User,
}

#[derive(Subcommand, Debug)]
pub(crate) enum ServiceCommand {
    /// List services, oldest first.
    List {
        /// Only this customer's: name or id.
        #[arg(long, value_name = "CUSTOMER")]
        tenant: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Show a service and who was given what of it.
    Show {
        /// Service id.
        service: String,
        #[command(flatten)]
        output: Output,
    },
    /// Order a service for a customer; it waits for its payment.
    #[command(after_help = "Example:\n  holdfastd service order acme --quantity 500")]
    Order(OrderArguments),
    /// Begin a trial for a customer.
    #[command(after_help = "Example:\n  holdfastd service trial acme --quantity 100")]
    Trial(OrderArguments),
    /// Buy what is tried or was.
    Buy {
        /// Service id.
        service: String,
        /// How much, in the product's unit.
        #[arg(long)]
        quantity: i64,
        #[command(flatten)]
        output: Output,
    },
    /// A payment has come: what waits for it becomes active.
    Pay(One),
    /// Take back an order that is not paid.
    Cancel(One),
    /// A further term.
    Renew(One),
    /// An invoice is overdue: no new backups, restores yes.
    Restrict(One),
    /// An invoice is long overdue: log-in, payment and data export only.
    Suspend(One),
    /// End an expired or suspended service for good: what it stored is destroyed.
    Terminate {
        /// Service id.
        service: String,
        /// The same again: nothing brings the data back.
        #[arg(long, value_name = "SERVICE")]
        confirm: String,
        #[command(flatten)]
        output: Output,
    },
    /// Change a licence; what is not named stays.
    #[command(after_help = "Example:\n  holdfastd service licence SERVICE --quantity 200 --expires-on 2027-06-30")]
    Licence {
        /// Service id.
        service: String,
        /// How much, in the product's unit.
        #[arg(long)]
        quantity: Option<i64>,
        /// Its last day.
        #[arg(long, value_name = "YYYY-MM-DD")]
        expires_on: Option<String>,
        /// Renews itself at its end.
        #[arg(long)]
        auto_renew: Option<bool>,
        #[command(flatten)]
        output: Output,
    },
    /// Give a user a part of a service, in place of what it had. Its vault is made with the first.
    #[command(after_help = "Example:\n  holdfastd service allocate SERVICE anna --space 20GiB")]
    Allocate {
        /// Service id.
        service: String,
        /// Name or id of a user of the customer.
        user: String,
        /// Space.
        #[arg(long, value_name = "SIZE")]
        space: Option<Bound>,
        /// Most computers [default: as many as wanted].
        #[arg(long)]
        computers: Option<i64>,
        #[command(flatten)]
        output: Output,
    },
    /// Show the contacts of a service.
    Contacts(One),
    /// Make somebody a contact of a service in another one's place.
    #[command(after_help = "Example:\n  \
        holdfastd --token-file admin.token service set-contact SERVICE billing bert")]
    SetContact {
        /// Service id.
        service: String,
        /// For what.
        #[arg(value_enum)]
        kind: ContactName,
        /// Name or id of a user of the customer, or the id of one of a tenant above it.
        user: String,
        #[command(flatten)]
        output: Output,
    },
    /// Take back what a user was given. What it stored stays.
    TakeBack {
        /// Service id.
        service: String,
        /// Name or id of a user of the customer.
        user: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ContactName {
    /// Manages the service.
    Admin,
    /// Gets what goes wrong.
    Technical,
    /// Gets invoices.
    Billing,
}

#[derive(Args, Debug)]
pub(crate) struct OrderArguments {
    /// Customer: name or id.
    tenant: String,
    /// Product: name or id.
    #[arg(long, default_value = "backup")]
    product: String,
    /// How much, in the product's unit.
    #[arg(long, default_value_t = 100)]
    quantity: i64,
    /// Its last day [default: the latest there may be].
    #[arg(long, value_name = "YYYY-MM-DD")]
    expires_on: Option<String>,
    /// Renews itself at its end.
    #[arg(long)]
    auto_renew: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct One {
    /// Service id.
    service: String,
    #[command(flatten)]
    output: Output,
}

const fn unit_word(unit: ProductUnit) -> &'static str {
    match unit {
        ProductUnit::Gib => "GiB",
        ProductUnit::Computer => "computers",
        ProductUnit::User => "users",
    }
}

const fn state_word(state: ServiceState) -> &'static str {
    match state {
        ServiceState::Ordered => "ordered",
        ServiceState::Trial => "trial",
        ServiceState::Active => "active",
        ServiceState::Restricted => "restricted",
        ServiceState::Suspended => "suspended",
        ServiceState::Expired => "expired",
        ServiceState::Cancelled => "cancelled",
        ServiceState::Terminated => "terminated",
    }
}

fn print_services(services: &[Service]) -> Result<(), CommandError> {
    let row = |service: &Service| {
        vec![
            service.id.clone(),
            service.tenant.clone(),
            service.product_name.clone(),
            format!("{} {}", service.quantity, unit_word(service.unit)),
            state_word(service.state).to_owned(),
            service.expires_on.clone(),
            if service.auto_renew { "renews itself".into() } else { String::new() },
        ]
    };
    let head = ["SERVICE", "CUSTOMER", "PRODUCT", "QUANTITY", "STATE", "LAST DAY", ""];
    Ok(table::print(&head, &services.iter().map(row).collect::<Vec<_>>())?)
}

fn show(service: Service, output: Output) -> Result<(), CommandError> {
    if output.json { print_json(&service) } else { print_services(&[service]) }
}

fn print_allocations(allocations: &[Allocation]) -> Result<(), CommandError> {
    let row = |allocation: &Allocation| {
        vec![
            allocation.user.clone(),
            allocation.user_name.clone(),
            u64::try_from(allocation.bytes).map_or("-".into(), |bytes| size(Some(bytes))),
            allocation.computers.map_or("any".into(), |computers| computers.to_string()),
            allocation.used_bytes.to_string(),
        ]
    };
    let head = ["USER", "NAME", "SPACE", "COMPUTERS", "BYTES STORED"];
    Ok(table::print(&head, &allocations.iter().map(row).collect::<Vec<_>>())?)
}

/// By name or id, among the users of the service's customer.
async fn find_user(server: &LocalServer, service: &str, named: &str) -> Result<Member, CommandError> {
    let service: Service = server.get(&format!("/services/{}", quoted(service))).await?;
    tenant::find_user(server, &service.tenant, named).await
}

async fn step(server: &LocalServer, one: One, step: &str) -> Result<(), CommandError> {
    let moved: Service = server.post(&format!("/services/{}/{step}", quoted(&one.service)), &()).await?;
    show(moved, one.output)
}

async fn order(server: &LocalServer, order: OrderArguments, kind: &str) -> Result<(), CommandError> {
    let OrderArguments { tenant, product, quantity, expires_on, auto_renew, output } = order;
    let tenant = find_tenant(server, &tenant).await?;
    let body = OrderService { product: Some(product), quantity: Some(quantity), expires_on, auto_renew };
    show(server.post(&format!("/tenants/{}/{kind}", tenant.id), &body).await?, output)
}

pub(crate) async fn product(settings: &CommonSettings, command: ProductCommand) -> Result<(), CommandError> {
    let server = find(settings)?;
    let products = match command {
        ProductCommand::List(output) => {
            let products: Products = server.get("/products").await?;
            if output.json {
                return print_json(&products);
            }
            products.items
        }
        ProductCommand::Add(add) => {
            let terms = ProductTerms {
                name: add.name,
                unit: match add.unit {
                    UnitName::Gib => ProductUnit::Gib,
                    UnitName::Computer => ProductUnit::Computer,
                    UnitName::User => ProductUnit::User,
                },
                price_minor: add.price_minor,
                currency: add.currency,
                trial_users: add.trial_users,
                trial_days: add.trial_days,
                term_months: add.term_months,
                overage_percent: add.overage_percent,
                kept_days: add.kept_days,
                exports: ExportTerms {
                    wait_days: add.export_wait_days,
                    kept_days: add.export_kept_days,
                    is_automatic: add.export_automatically,
                },
                features: Vec::new(),
            };
            let made: Product = server.post("/products", &terms).await?;
            if add.output.json {
                return print_json(&made);
            }
            vec![made]
        }
    };
    let row = |product: &Product| {
        vec![
            product.id.clone(),
            product.terms.name.clone(),
            unit_word(product.terms.unit).to_owned(),
            format!("{} {}", product.terms.price_minor, product.terms.currency),
            format!("{} users, {} days", product.terms.trial_users, product.terms.trial_days),
            format!("{} months", product.terms.term_months),
            format!("{} %", product.terms.overage_percent),
            table::time(product.retired_ns),
        ]
    };
    let head = ["PRODUCT", "NAME", "SOLD BY", "PRICE (MINOR)", "TRIAL", "TERM", "OVERAGE", "RETIRED"];
    Ok(table::print(&head, &products.iter().map(row).collect::<Vec<_>>())?)
}

fn print_contacts(contacts: &ServiceContacts, output: Output) -> Result<(), CommandError> {
    if output.json {
        return print_json(contacts);
    }
    let row = |contact: &ServiceContact| {
        let since = table::time(Some(contact.changed_ns));
        vec![contact.kind.clone(), contact.user.clone(), contact.title.clone(), since]
    };
    let rows: Vec<_> = contacts.items.iter().map(row).collect();
    Ok(table::print(&["CONTACT", "USER", "NAME", "SINCE (UTC)"], &rows)?)
}

pub(crate) async fn service(settings: &CommonSettings, command: ServiceCommand) -> Result<(), CommandError> {
    let server = find(settings)?;
    match command {
        ServiceCommand::List { tenant, output } => {
            let filter = match tenant {
                Some(tenant) => format!("&tenant={}", find_tenant(&server, &tenant).await?.id),
                None => String::new(),
            };
            let (mut items, mut after) = (Vec::new(), String::new());
            loop {
                let page: Services = server.get(&format!("/services?limit=200{filter}{after}")).await?;
                items.extend(page.items);
                match page.next {
                    Some(next) => after = format!("&after={}", quoted(&next)),
                    None => break,
                }
            }
            if output.json {
                return print_json(&Services { items, next: None });
            }
            print_services(&items)
        }
        ServiceCommand::Show { service, output } => {
            let path = format!("/services/{}", quoted(&service));
            let found: Service = server.get(&path).await?;
            if output.json {
                return print_json(&found);
            }
            let given: Allocations = server.get(&format!("{path}/allocations")).await?;
            print_services(&[found])?;
            writeln!(io::stdout())?;
            print_allocations(&given.items)?;
            writeln!(
                io::stdout(),
                "\n{} of {} are given away, {} are free.",
                given.allocated,
                given.capacity,
                given.free
            )?;
            Ok(())
        }
        ServiceCommand::Order(arguments) => order(&server, arguments, "services").await,
        ServiceCommand::Trial(arguments) => order(&server, arguments, "trials").await,
        ServiceCommand::Buy { service, quantity, output } => {
            let path = format!("/services/{}/order", quoted(&service));
            show(server.post(&path, &BuyService { quantity }).await?, output)
        }
        ServiceCommand::Pay(one) => step(&server, one, "pay").await,
        ServiceCommand::Cancel(one) => step(&server, one, "cancel").await,
        ServiceCommand::Renew(one) => step(&server, one, "renew").await,
        ServiceCommand::Restrict(one) => step(&server, one, "restrict").await,
        ServiceCommand::Suspend(one) => step(&server, one, "suspend").await,
        ServiceCommand::Terminate { service, confirm, output } => {
            if service != confirm {
                let text = format!("--confirm must repeat {service}: nothing brings the data back");
                return Err(CommandError::Refused(text));
            }
            step(&server, One { service, output }, "terminate").await
        }
        ServiceCommand::Licence { service, quantity, expires_on, auto_renew, output } => {
            let path = format!("/services/{}/licence", quoted(&service));
            show(server.put(&path, &SetLicence { quantity, expires_on, auto_renew }).await?, output)
        }
        ServiceCommand::Allocate { service, user, space, computers, output } => {
            let user = find_user(&server, &service, &user).await?;
            let space = space.and_then(|bound| bound.0).unwrap_or(0);
            let bytes = i64::try_from(space).map_err(|_| CommandError::Refused("--space is too large".into()))?;
            let path = format!("/services/{}/allocations/{}", quoted(&service), user.user);
            let given: Allocation = server.put(&path, &SetAllocation { bytes, computers }).await?;
            if output.json { print_json(&given) } else { print_allocations(&[given]) }
        }
        ServiceCommand::Contacts(One { service, output }) => {
            print_contacts(&server.get(&format!("/services/{}/contacts", quoted(&service))).await?, output)
        }
        ServiceCommand::SetContact { service, kind, user, output } => {
            let kind = match kind {
                ContactName::Admin => "admin",
                ContactName::Technical => "technical",
                ContactName::Billing => "billing",
            };
            // An id may be of somebody above the customer, whom its list does not name.
            let user = match is_id(&user) {
                true => user,
                false => find_user(&server, &service, &user).await?.user,
            };
            let path = format!("/services/{}/contacts/{kind}", quoted(&service));
            print_contacts(&server.put(&path, &SetContact { user }).await?, output)
        }
        ServiceCommand::TakeBack { service, user } => {
            let user = find_user(&server, &service, &user).await?;
            server.delete_nothing(&format!("/services/{}/allocations/{}", quoted(&service), user.user)).await?;
            writeln!(io::stdout(), "User {} has no part of the service any more.", user.name)?;
            Ok(())
        }
    }
}
