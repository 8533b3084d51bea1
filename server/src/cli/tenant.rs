//! `holdfastd tenant`: partners and customers, through the API of the running server.

use crate::cli::accounts::{Output, find, print_json};
use crate::cli::identity::RoleName;
use crate::cli::{CommandError, table};
use crate::config::CommonSettings;
use crate::local::LocalServer;
use api::members::{Member, MemberRole, Members, OfferOwner, OwnerOffer, SetRoles};
use api::removal::UserState;
use api::tenants::{CreateTenant, EditTenant, SupportAccess, Tenant, TenantKind, TenantState, Tenants};
use clap::{Args, Subcommand, ValueEnum};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::collections::BTreeMap;
use std::io::{self, Write};

#[derive(Subcommand, Debug)]
pub(crate) enum TenantCommand {
    /// Make a partner or a customer.
    #[command(after_help = "Examples:\n  \
        holdfastd tenant add partner \"North IT\" --name north\n  \
        holdfastd tenant add customer \"Acme Ltd\" --name acme --parent north")]
    Add(AddTenant),
    /// List tenants by title.
    List {
        /// Only these.
        #[arg(long, value_enum)]
        kind: Option<KindName>,
        #[command(flatten)]
        output: Output,
    },
    /// Show a tenant.
    Show {
        /// Name or id.
        tenant: String,
        #[command(flatten)]
        output: Output,
    },
    /// Disconnect a tenant: no backups, no restores. Its data stays.
    Disconnect(One),
    /// Connect a tenant again; a deletion that was asked for is taken back.
    Connect(One),
    /// Delete a disconnected tenant: 30 days later everything of it is destroyed, unless it is connected before.
    Delete {
        /// Name or id.
        tenant: String,
        /// The same again.
        #[arg(long, value_name = "TENANT")]
        confirm: String,
        #[command(flatten)]
        output: Output,
    },
    /// List who belongs to a tenant.
    Members(One),
    /// Set what somebody is in a tenant, in place of what it was.
    #[command(after_help = "Example:\n  holdfastd tenant role acme bert admin,user")]
    Role {
        #[command(flatten)]
        user: OneUser,
        /// admin, user or auditor; several with commas.
        #[arg(value_enum, value_delimiter = ',', required = true)]
        roles: Vec<RoleName>,
        #[command(flatten)]
        output: Output,
    },
    /// Take somebody who is at home elsewhere out of a tenant.
    RemoveMember(OneUser),
    /// Offer a tenant to one of its administrators, who becomes its owner by accepting.
    OfferOwner(OneUser),
    /// Accept a tenant that was offered to the one whose token is given with --token-file.
    AcceptOwner(One),
    /// Let the partner read and restore a customer's data until a time, as the customer's administrator.
    #[command(after_help = "Examples:\n  \
        holdfastd --token-file admin.token tenant support-access acme --hours 24\n  \
        holdfastd --token-file admin.token tenant support-access acme --off")]
    SupportAccess {
        /// Name or id.
        tenant: String,
        /// For so long.
        #[arg(long, required_unless_present = "off", conflicts_with = "off")]
        hours: Option<u32>,
        /// From now on no more.
        #[arg(long)]
        off: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Disable a user: no log-in, no backups, no restores.
    DisableUser(OneUser),
    /// Enable a disabled user again.
    EnableUser(OneUser),
    /// Delete a disabled user: 30 days later its vaults are destroyed, unless it is brought back before.
    DeleteUser(OneUser),
    /// Bring a deleted user back, disabled.
    UndeleteUser(OneUser),
    /// Change what is known of a tenant; what is not named stays.
    #[command(after_help = "Examples:\n  \
        holdfastd tenant edit acme --title \"Acme GmbH\" --time-zone Europe/Berlin --locale de\n  \
        holdfastd tenant edit acme --legal name=\"Acme GmbH\" --legal country=DE --legal vat_id=DE123456789\n  \
        holdfastd tenant edit acme --contact email=office@acme.example")]
    Edit(Box<EditArguments>),
}

#[derive(Args, Debug)]
pub(crate) struct One {
    /// Name or id.
    tenant: String,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct OneUser {
    /// Tenant: name or id.
    tenant: String,
    /// User: name or id.
    user: String,
}

#[derive(Args, Debug)]
pub(crate) struct AddTenant {
    /// What it is.
    #[arg(value_enum)]
    kind: NewKind,
    /// For people.
    title: String,
    /// For addresses such as CUSTOMER/USER [default: its id].
    #[arg(long)]
    name: Option<String>,
    /// Name or id of the partner it belongs to [default: the platform].
    #[arg(long, value_name = "TENANT")]
    parent: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct EditArguments {
    /// Name or id.
    tenant: String,
    /// For people.
    #[arg(long)]
    title: Option<String>,
    /// en, pl, de or pt.
    #[arg(long)]
    locale: Option<String>,
    /// Name in the IANA database, such as Europe/Warsaw.
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// A field of what stands on invoices; without a value it is removed. May be repeated.
    #[arg(long, value_name = "FIELD=VALUE")]
    legal: Vec<String>,
    /// A field of how to reach it; without a value it is removed. May be repeated.
    #[arg(long, value_name = "FIELD=VALUE")]
    contact: Vec<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum KindName {
    /// The one at the root.
    Platform,
    /// Sells to customers.
    Partner,
    /// Has users.
    Customer,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum NewKind {
    /// Sells to customers.
    Partner,
    /// Has users.
    Customer,
}

const fn kind_word(kind: TenantKind) -> &'static str {
    match kind {
        TenantKind::Platform => "platform",
        TenantKind::Partner => "partner",
        TenantKind::Customer => "customer",
    }
}

const fn state_word(state: TenantState) -> &'static str {
    match state {
        TenantState::Active => "active",
        TenantState::Disconnected => "disconnected",
        TenantState::Deleting => "deleting",
    }
}

pub(crate) fn quoted(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

async fn all(server: &LocalServer, kind: Option<TenantKind>) -> Result<Vec<Tenant>, CommandError> {
    let filter = kind.map_or(String::new(), |kind| format!("&kind={}", kind_word(kind)));
    let (mut tenants, mut after) = (Vec::new(), String::new());
    loop {
        let page: Tenants = server.get(&format!("/tenants?limit=200{filter}{after}")).await?;
        tenants.extend(page.items);
        match page.next {
            Some(next) => after = format!("&after={}", quoted(&next)),
            None => return Ok(tenants),
        }
    }
}

/// Whether it is written as ids are.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// By name or id.
pub(crate) async fn find_tenant(server: &LocalServer, named: &str) -> Result<Tenant, CommandError> {
    if is_id(named) {
        return Ok(server.get(&format!("/tenants/{named}")).await?);
    }
    let found = all(server, None).await?.into_iter().find(|tenant| tenant.name == named);
    found.ok_or_else(|| CommandError::Refused(format!("there is no tenant {named}; see `holdfastd tenant list`")))
}

fn fields(
    mut data: BTreeMap<String, String>,
    changes: Vec<String>,
) -> Result<Option<BTreeMap<String, String>>, CommandError> {
    if changes.is_empty() {
        return Ok(None);
    }
    for change in changes {
        let (field, value) = change
            .split_once('=')
            .ok_or_else(|| CommandError::Refused(format!("{change}: must be written FIELD=VALUE")))?;
        match value.is_empty() {
            true => data.remove(field),
            false => data.insert(field.to_owned(), value.to_owned()),
        };
    }
    Ok(Some(data))
}

fn print(tenant: &Tenant) -> Result<(), CommandError> {
    let mut rows = vec![
        vec!["id".into(), tenant.id.clone()],
        vec!["kind".into(), kind_word(tenant.kind).into()],
        vec!["parent".into(), tenant.parent.clone().unwrap_or("-".into())],
        vec!["name".into(), tenant.name.clone()],
        vec!["title".into(), tenant.title.clone()],
        vec!["state".into(), state_word(tenant.state).into()],
        vec!["data goes (UTC)".into(), table::time(tenant.delete_after_ns)],
        vec!["language".into(), tenant.locale.clone()],
        vec!["time zone".into(), tenant.time_zone.clone()],
        vec!["created (UTC)".into(), table::time(Some(tenant.created_ns))],
    ];
    rows.extend(tenant.legal.iter().map(|(field, value)| vec![format!("legal {field}"), value.clone()]));
    rows.extend(tenant.contact.iter().map(|(field, value)| vec![format!("contact {field}"), value.clone()]));
    Ok(table::print(&["TENANT", ""], &rows)?)
}

fn show(tenant: &Tenant, output: Output) -> Result<(), CommandError> {
    if output.json { print_json(tenant) } else { print(tenant) }
}

/// Everybody who belongs to a tenant.
pub(crate) async fn members(server: &LocalServer, tenant: &str) -> Result<Vec<Member>, CommandError> {
    let (mut members, mut after) = (Vec::new(), String::new());
    loop {
        let page: Members = server.get(&format!("/tenants/{tenant}/members?limit=200{after}")).await?;
        members.extend(page.items);
        match page.next {
            Some(next) => after = format!("&after={}", quoted(&next)),
            None => return Ok(members),
        }
    }
}

/// By name or id, among those who belong to a tenant.
pub(crate) async fn find_user(server: &LocalServer, tenant: &str, named: &str) -> Result<Member, CommandError> {
    let found = members(server, tenant).await?.into_iter().find(|member| member.user == named || member.name == named);
    found.ok_or_else(|| CommandError::Refused(format!("the tenant has no user {named}")))
}

async fn step_user(server: &LocalServer, one: OneUser, step: Option<&str>) -> Result<(), CommandError> {
    let tenant = find_tenant(server, &one.tenant).await?;
    let user = find_user(server, &tenant.id, &one.user).await?;
    let moved: UserState = match step {
        Some(step) => server.post(&format!("/users/{}/{step}", user.user), &()).await?,
        None => server.delete(&format!("/users/{}", user.user)).await?,
    };
    writeln!(io::stdout(), "User {} is {}.", user.name, moved.state)?;
    Ok(())
}

fn print_members(members: &[Member]) -> Result<(), CommandError> {
    let role = |role: &MemberRole| match role {
        MemberRole::Admin => "admin",
        MemberRole::User => "user",
        MemberRole::Auditor => "auditor",
    };
    let row = |member: &Member| {
        vec![
            member.user.clone(),
            member.name.clone(),
            member.email.clone().unwrap_or("-".into()),
            member.roles.iter().map(role).collect::<Vec<_>>().join(","),
            if member.owner { "owner".into() } else { String::new() },
            member.state.clone(),
            table::time(member.last_login_ns),
        ]
    };
    let head = ["USER", "NAME", "E-MAIL", "ROLES", "", "STATE", "LAST LOG-IN (UTC)"];
    Ok(table::print(&head, &members.iter().map(row).collect::<Vec<_>>())?)
}

pub(crate) async fn tenant(settings: &CommonSettings, command: TenantCommand) -> Result<(), CommandError> {
    let server = find(settings)?;
    match command {
        TenantCommand::Add(AddTenant { kind, title, name, parent, output }) => {
            let parent = match parent {
                Some(parent) => Some(find_tenant(&server, &parent).await?.id),
                None => None,
            };
            let kind = match kind {
                NewKind::Partner => TenantKind::Partner,
                NewKind::Customer => TenantKind::Customer,
            };
            let made: Tenant = server.post("/tenants", &CreateTenant { parent, kind, name, title }).await?;
            show(&made, output)
        }
        TenantCommand::List { kind, output } => {
            let kind = kind.map(|kind| match kind {
                KindName::Platform => TenantKind::Platform,
                KindName::Partner => TenantKind::Partner,
                KindName::Customer => TenantKind::Customer,
            });
            let items = all(&server, kind).await?;
            if output.json {
                return print_json(&Tenants { items, next: None });
            }
            let row = |tenant: &Tenant| {
                vec![
                    tenant.id.clone(),
                    kind_word(tenant.kind).to_owned(),
                    tenant.name.clone(),
                    tenant.title.clone(),
                    state_word(tenant.state).to_owned(),
                    table::time(Some(tenant.created_ns)),
                ]
            };
            let head = ["TENANT", "KIND", "NAME", "TITLE", "STATE", "CREATED (UTC)"];
            Ok(table::print(&head, &items.iter().map(row).collect::<Vec<_>>())?)
        }
        TenantCommand::Disconnect(One { tenant, output }) => {
            let id = find_tenant(&server, &tenant).await?.id;
            show(&server.post(&format!("/tenants/{id}/disconnect"), &()).await?, output)
        }
        TenantCommand::Connect(One { tenant, output }) => {
            let id = find_tenant(&server, &tenant).await?.id;
            show(&server.post(&format!("/tenants/{id}/connect"), &()).await?, output)
        }
        TenantCommand::Delete { tenant, confirm, output } => {
            if tenant != confirm {
                return Err(CommandError::Refused(format!("--confirm must repeat {tenant}")));
            }
            let id = find_tenant(&server, &tenant).await?.id;
            show(&server.delete(&format!("/tenants/{id}")).await?, output)
        }
        TenantCommand::Members(One { tenant, output }) => {
            let items = members(&server, &find_tenant(&server, &tenant).await?.id).await?;
            if output.json { print_json(&Members { items, next: None }) } else { print_members(&items) }
        }
        TenantCommand::Role { user: OneUser { tenant, user }, roles, output } => {
            let tenant = find_tenant(&server, &tenant).await?.id;
            let user = find_user(&server, &tenant, &user).await?.user;
            let roles = roles.into_iter().map(RoleName::role).collect();
            let member: Member = server.put(&format!("/tenants/{tenant}/members/{user}"), &SetRoles { roles }).await?;
            if output.json { print_json(&member) } else { print_members(&[member]) }
        }
        TenantCommand::RemoveMember(OneUser { tenant, user }) => {
            let tenant = find_tenant(&server, &tenant).await?;
            let user = find_user(&server, &tenant.id, &user).await?;
            server.delete_nothing(&format!("/tenants/{}/members/{}", tenant.id, user.user)).await?;
            Ok(writeln!(io::stdout(), "{} belongs to {} no longer.", user.name, tenant.name)?)
        }
        TenantCommand::OfferOwner(OneUser { tenant, user }) => {
            let tenant = find_tenant(&server, &tenant).await?;
            let user = find_user(&server, &tenant.id, &user).await?;
            let offer: OwnerOffer =
                server.post(&format!("/tenants/{}/owner", tenant.id), &OfferOwner { user: user.user }).await?;
            let until = table::time(Some(offer.expires_ns));
            Ok(writeln!(io::stdout(), "{} may accept {} until {until} UTC.", user.name, tenant.name)?)
        }
        TenantCommand::AcceptOwner(One { tenant, output }) => {
            let id = find_tenant(&server, &tenant).await?.id;
            let member: Member = server.post(&format!("/tenants/{id}/owner/accept"), &()).await?;
            if output.json { print_json(&member) } else { print_members(&[member]) }
        }
        TenantCommand::SupportAccess { tenant, hours, off: _, output } => {
            let id = find_tenant(&server, &tenant).await?.id;
            let now_ns = jiff::Timestamp::now().as_nanosecond();
            let until = hours.map(|hours| now_ns + i128::from(hours) * 3_600_000_000_000);
            let until_ns = until.and_then(|until_ns| i64::try_from(until_ns).ok());
            show(&server.put(&format!("/tenants/{id}/support-access"), &SupportAccess { until_ns }).await?, output)
        }
        TenantCommand::DisableUser(one) => step_user(&server, one, Some("disable")).await,
        TenantCommand::EnableUser(one) => step_user(&server, one, Some("enable")).await,
        TenantCommand::DeleteUser(one) => step_user(&server, one, None).await,
        TenantCommand::UndeleteUser(one) => step_user(&server, one, Some("undelete")).await,
        TenantCommand::Show { tenant, output } => show(&find_tenant(&server, &tenant).await?, output),
        TenantCommand::Edit(arguments) => {
            let EditArguments { tenant, title, locale, time_zone, legal, contact, output } = *arguments;
            let found = find_tenant(&server, &tenant).await?;
            let (legal, contact) = (fields(found.legal, legal)?, fields(found.contact, contact)?);
            let edit = EditTenant { title, locale, time_zone, legal, contact };
            let edited: Tenant = server.patch(&format!("/tenants/{}", found.id), &edit).await?;
            show(&edited, output)
        }
    }
}
