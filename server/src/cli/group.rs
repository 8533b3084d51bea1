//! `holdfastd group`: groups of a partner's members, and what they may do for which customers, through the API of the
//! running server.

use crate::cli::accounts::{Output, find, print_json};
use crate::cli::tenant::{find_tenant, find_user, members};
use crate::cli::{CommandError, table};
use crate::config::CommonSettings;
use crate::local::LocalServer;
use api::members::{Group, GroupTerms, Groups};
use clap::{Args, Subcommand};
use std::io::{self, Write};

#[derive(Subcommand, Debug)]
pub(crate) enum GroupCommand {
    /// List the groups of a tenant.
    List {
        /// Tenant: name or id.
        tenant: String,
        #[command(flatten)]
        output: Output,
    },
    /// Make a group.
    #[command(after_help = "Examples:\n  \
        holdfastd group add north \"Night desk\" --verb job.view --verb backup.start --all-customers\n  \
        holdfastd group add north \"Acme desk\" --verb job.view --customer acme")]
    Add {
        /// Tenant: name or id.
        tenant: String,
        /// Unique in the tenant.
        name: String,
        #[command(flatten)]
        terms: Terms,
        #[command(flatten)]
        output: Output,
    },
    /// Change a group; what is not named stays.
    Edit {
        /// Tenant: name or id.
        tenant: String,
        /// Group: name or id.
        group: String,
        /// Another name.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        terms: Terms,
        /// No longer for all customers.
        #[arg(long, conflicts_with = "all_customers")]
        named_customers_only: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Delete a group: its members lose what it gave.
    Delete(OneGroup),
    /// Put somebody into a group.
    AddMember(OneMember),
    /// Take somebody out of a group.
    RemoveMember(OneMember),
}

#[derive(Args, Debug)]
pub(crate) struct Terms {
    /// What members may do, such as `job.view`. May be repeated.
    #[arg(long, value_name = "VERB")]
    verb: Vec<String>,
    /// For this customer: name or id. May be repeated.
    #[arg(long, value_name = "CUSTOMER", conflicts_with = "all_customers")]
    customer: Vec<String>,
    /// For all customers of the partner, also those to come.
    #[arg(long)]
    all_customers: bool,
}

#[derive(Args, Debug)]
pub(crate) struct OneGroup {
    /// Tenant: name or id.
    tenant: String,
    /// Group: name or id.
    group: String,
}

#[derive(Args, Debug)]
pub(crate) struct OneMember {
    #[command(flatten)]
    group: OneGroup,
    /// User of the tenant: name or id.
    user: String,
    #[command(flatten)]
    output: Output,
}

async fn all(server: &LocalServer, tenant: &str) -> Result<Groups, CommandError> {
    Ok(server.get(&format!("/tenants/{tenant}/groups")).await?)
}

/// By name or id.
async fn find_group(server: &LocalServer, tenant: &str, named: &str) -> Result<Group, CommandError> {
    let found =
        all(server, tenant).await?.items.into_iter().find(|group| group.id == named || group.terms.name == named);
    found.ok_or_else(|| CommandError::Refused(format!("the tenant has no group {named}; see `holdfastd group list`")))
}

async fn customers(server: &LocalServer, named: &[String]) -> Result<Vec<String>, CommandError> {
    let mut ids = Vec::with_capacity(named.len());
    for customer in named {
        ids.push(find_tenant(server, customer).await?.id);
    }
    Ok(ids)
}

async fn print(server: &LocalServer, tenant: &str, groups: &[Group]) -> Result<(), CommandError> {
    let people = members(server, tenant).await?;
    let name =
        |user: &String| people.iter().find(|member| member.user == *user).map_or(user.clone(), |m| m.name.clone());
    let row = |group: &Group| {
        let customers = match (group.terms.all_customers, group.terms.customers.len()) {
            (true, _) => "all".to_owned(),
            (false, count) => count.to_string(),
        };
        vec![
            group.id.clone(),
            group.terms.name.clone(),
            customers,
            group.terms.verbs.join(","),
            group.members.iter().map(name).collect::<Vec<_>>().join(","),
        ]
    };
    let head = ["GROUP", "NAME", "CUSTOMERS", "VERBS", "MEMBERS"];
    Ok(table::print(&head, &groups.iter().map(row).collect::<Vec<_>>())?)
}

pub(crate) async fn group(settings: &CommonSettings, command: GroupCommand) -> Result<(), CommandError> {
    let server = find(settings)?;
    let show = async |tenant: &str, group: Group, output: Output| match output.json {
        true => print_json(&group),
        false => print(&server, tenant, &[group]).await,
    };
    match command {
        GroupCommand::List { tenant, output } => {
            let tenant = find_tenant(&server, &tenant).await?.id;
            let groups = all(&server, &tenant).await?;
            if output.json { print_json(&groups) } else { print(&server, &tenant, &groups.items).await }
        }
        GroupCommand::Add { tenant, name, terms, output } => {
            let tenant = find_tenant(&server, &tenant).await?.id;
            let Terms { verb: verbs, customer, all_customers } = terms;
            let customers = customers(&server, &customer).await?;
            let terms = GroupTerms { name, verbs, all_customers, customers };
            let made: Group = server.post(&format!("/tenants/{tenant}/groups"), &terms).await?;
            show(&tenant, made, output).await
        }
        GroupCommand::Edit { tenant, group, name, terms, named_customers_only, output } => {
            let tenant = find_tenant(&server, &tenant).await?.id;
            let Group { id, terms: mut new, .. } = find_group(&server, &tenant, &group).await?;
            if let Some(name) = name {
                new.name = name;
            }
            if !terms.verb.is_empty() {
                new.verbs = terms.verb;
            }
            if !terms.customer.is_empty() {
                new.customers = customers(&server, &terms.customer).await?;
            }
            new.all_customers = (new.all_customers || terms.all_customers) && !named_customers_only;
            let edited: Group = server.put(&format!("/groups/{id}"), &new).await?;
            show(&tenant, edited, output).await
        }
        GroupCommand::Delete(OneGroup { tenant, group }) => {
            let tenant = find_tenant(&server, &tenant).await?.id;
            let found = find_group(&server, &tenant, &group).await?;
            server.delete_nothing(&format!("/groups/{}", found.id)).await?;
            Ok(writeln!(io::stdout(), "Group {} is gone.", found.terms.name)?)
        }
        GroupCommand::AddMember(OneMember { group, user, output }) => {
            let tenant = find_tenant(&server, &group.tenant).await?.id;
            let (found, user) =
                (find_group(&server, &tenant, &group.group).await?, find_user(&server, &tenant, &user).await?);
            let path = format!("/groups/{}/members/{}", found.id, user.user);
            show(&tenant, server.put(&path, &()).await?, output).await
        }
        GroupCommand::RemoveMember(OneMember { group, user, output }) => {
            let tenant = find_tenant(&server, &group.tenant).await?.id;
            let (found, user) =
                (find_group(&server, &tenant, &group.group).await?, find_user(&server, &tenant, &user).await?);
            let path = format!("/groups/{}/members/{}", found.id, user.user);
            show(&tenant, server.delete(&path).await?, output).await
        }
    }
}
