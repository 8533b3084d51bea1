//! `holdfastd invitation`, `security` and `recovery`: who may come in, from where, and how somebody comes back. All
//! through the API of the running server.

use crate::cli::accounts::{Output, find, print_json};
use crate::cli::tenant::find_tenant;
use crate::cli::{CommandError, table};
use crate::config::CommonSettings;
use crate::local::LocalServer;
use api::invitations::{
    AskRecovery, Invitation, InvitationKind, InvitationState, Invite, MemberRole, Recovery, Security, SecurityPolicy,
    SentInvitation,
};
use api::page::Page;
use clap::{Args, Subcommand, ValueEnum};
use std::io::{self, Write};

const PLATFORM: &str = "00000000000000000000000000000000";

#[derive(Subcommand, Debug)]
pub(crate) enum InvitationCommand {
    /// Invite somebody by mail, and print the link as well.
    ///
    /// Examples:
    ///   holdfastd invitation send ops@example.org                             an operator of this server
    ///   holdfastd invitation send anna@example.org --customer "Acme Ltd"      a customer, with Anna as its owner
    ///   holdfastd invitation send bert@example.org --tenant acme --role user
    #[command(verbatim_doc_comment)]
    Send(Box<SendInvitation>),
    /// List invitations into a tenant and below it.
    List {
        /// Tenant, by name or id [default: the platform].
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Send an invitation again with a new link; the one before stops working.
    Resend {
        /// Invitation id, from the list.
        id: String,
    },
    /// Take an invitation back.
    Revoke {
        /// Invitation id, from the list.
        id: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct SendInvitation {
    /// Mail address.
    email: String,
    /// Into which tenant, or below which, by name or id [default: the platform].
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// As what [default: admin].
    #[arg(long, value_enum, conflicts_with_all = ["customer", "partner"])]
    role: Option<RoleName>,
    /// Make a customer with this title, and the person its owner.
    #[arg(long, value_name = "TITLE", conflicts_with = "partner")]
    customer: Option<String>,
    /// Make a partner with this title, and the person its owner.
    #[arg(long, value_name = "TITLE")]
    partner: Option<String>,
    /// Language of the mail and of the person [default: en].
    #[arg(long, value_name = "TAG")]
    locale: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum RoleName {
    /// Administers the tenant.
    Admin,
    /// Backs up own computers.
    User,
    /// Reads, no content.
    Auditor,
}

impl RoleName {
    pub(crate) const fn role(self) -> MemberRole {
        match self {
            RoleName::Admin => MemberRole::Admin,
            RoleName::User => MemberRole::User,
            RoleName::Auditor => MemberRole::Auditor,
        }
    }
}

#[derive(Subcommand, Debug)]
pub(crate) enum SecurityCommand {
    /// Show what a tenant asks of its people.
    Show {
        /// Tenant, by name or id; `@platform` for the operators.
        tenant: String,
        #[command(flatten)]
        output: Output,
    },
    /// Change it. Also the way in for somebody whose trusted networks have locked everybody out: --trust-everywhere.
    Set(SetSecurity),
}

#[derive(Args, Debug)]
pub(crate) struct SetSecurity {
    /// Tenant, by name or id; `@platform` for the operators.
    tenant: String,
    /// Minutes without a request after which a login session ends, 5 to 480.
    #[arg(long, value_name = "MINUTES")]
    idle_minutes: Option<i64>,
    /// off, optional or required.
    #[arg(long, value_name = "RULE")]
    second_factor: Option<String>,
    /// Networks from which those who belong to the tenant may come, with commas: 192.0.2.0/24,2001:db8::/32.
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',', conflicts_with = "trust_everywhere")]
    trusted_networks: Vec<String>,
    /// From anywhere.
    #[arg(long)]
    trust_everywhere: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Subcommand, Debug)]
pub(crate) enum RecoveryCommand {
    /// Give an account back to its owner: a new mail address in three days, with notices to all old ones. Where there is
    /// another operator, that one must agree first.
    Ask {
        /// User id.
        user: String,
        /// The mail address that the account gets.
        #[arg(long, value_name = "ADDRESS")]
        new_email: String,
        /// What you know, for the other operator and the audit log.
        #[arg(long)]
        reason: String,
    },
    /// List recoveries.
    List(Output),
    /// Agree to what another operator has asked for.
    Approve {
        /// Recovery id, from the list.
        id: String,
    },
    /// End a recovery.
    Cancel {
        /// Recovery id, from the list.
        id: String,
    },
}

/// An id as it may stand in a path.
fn checked(id: &str) -> Result<&str, CommandError> {
    match id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(id),
        false => Err(CommandError::Refused(format!("{id}: an id is 32 hexadecimal digits, see the list"))),
    }
}

async fn tenant_id(server: &LocalServer, named: Option<&str>) -> Result<String, CommandError> {
    match named {
        None | Some("@platform") => Ok(PLATFORM.into()),
        Some(named) => Ok(find_tenant(server, named).await?.id),
    }
}

fn print_sent(sent: &SentInvitation) -> io::Result<()> {
    let Invitation { id, email, .. } = &sent.invitation;
    let mut out = io::stdout().lock();
    writeln!(out, "Invitation {id} is on its way to {email}. Its link works once, for seven days.")?;
    match &sent.link {
        Some(link) => writeln!(out, "\n    {}\n", link.0),
        None => Ok(()),
    }
}

const fn kind_word(kind: InvitationKind) -> &'static str {
    match kind {
        InvitationKind::User => "user",
        InvitationKind::Customer => "customer",
        InvitationKind::Partner => "partner",
    }
}

const fn state_word(state: InvitationState) -> &'static str {
    match state {
        InvitationState::Sent => "sent",
        InvitationState::Accepted => "accepted",
        InvitationState::Expired => "expired",
        InvitationState::Revoked => "revoked",
    }
}

pub(crate) async fn invitation(settings: &CommonSettings, command: InvitationCommand) -> Result<(), CommandError> {
    let server = find(settings)?;
    match command {
        InvitationCommand::Send(arguments) => {
            let SendInvitation { email, tenant, role, customer, partner, locale, output } = *arguments;
            let tenant = tenant_id(&server, tenant.as_deref()).await?;
            let (kind, title) = match (customer, partner) {
                (Some(title), _) => (InvitationKind::Customer, Some(title)),
                (None, Some(title)) => (InvitationKind::Partner, Some(title)),
                (None, None) => (InvitationKind::User, None),
            };
            let role = match (kind, role) {
                (InvitationKind::User, role) => Some(role.unwrap_or(RoleName::Admin).role()),
                _ => None,
            };
            let invite = Invite { kind, email, role, groups: Vec::new(), title, service: None, locale };
            let sent: SentInvitation = server.post(&format!("/tenants/{tenant}/invitations"), &invite).await?;
            if output.json {
                return print_json(&sent);
            }
            print_sent(&sent)?;
        }
        InvitationCommand::List { tenant, output } => {
            let tenant = tenant_id(&server, tenant.as_deref()).await?;
            let page: Page<Invitation> = server.get(&format!("/tenants/{tenant}/invitations?limit=200")).await?;
            if output.json {
                return print_json(&page);
            }
            let row = |one: &Invitation| {
                vec![
                    one.id.clone(),
                    kind_word(one.kind).to_owned(),
                    one.email.clone(),
                    one.title.clone().unwrap_or("-".into()),
                    one.inviter.clone(),
                    state_word(one.state).to_owned(),
                    table::time(Some(one.expires_ns)),
                ]
            };
            let head = ["INVITATION", "KIND", "TO", "TENANT", "BY", "STATE", "LINK UNTIL (UTC)"];
            table::print(&head, &page.items.iter().map(row).collect::<Vec<_>>())?;
        }
        InvitationCommand::Resend { id } => {
            let sent: SentInvitation = server.post(&format!("/invitations/{}/resend", checked(&id)?), &()).await?;
            print_sent(&sent)?;
        }
        InvitationCommand::Revoke { id } => {
            let revoked: Invitation = server.delete(&format!("/invitations/{}", checked(&id)?)).await?;
            writeln!(io::stdout(), "The invitation of {} is taken back.", revoked.email)?;
        }
    }
    Ok(())
}

fn print_security(security: &Security, output: Output) -> Result<(), CommandError> {
    if output.json {
        return print_json(security);
    }
    let networks = |policy: &SecurityPolicy| match policy.trusted_networks.is_empty() {
        true => "anywhere".to_owned(),
        false => policy.trusted_networks.join(", "),
    };
    let Security { own, effective } = security;
    let rows = vec![
        vec!["idle minutes".into(), own.idle_minutes.to_string(), effective.idle_minutes.to_string()],
        vec!["second factor".into(), own.second_factor.clone(), effective.second_factor.clone()],
        vec!["people come from".into(), networks(own), networks(effective)],
    ];
    Ok(table::print(&["", "OWN", "WITH THOSE ABOVE"], &rows)?)
}

pub(crate) async fn security(settings: &CommonSettings, command: SecurityCommand) -> Result<(), CommandError> {
    let server = find(settings)?;
    match command {
        SecurityCommand::Show { tenant, output } => {
            let path = format!("/tenants/{}/security", tenant_id(&server, Some(&tenant)).await?);
            print_security(&server.get(&path).await?, output)
        }
        SecurityCommand::Set(set) => {
            let path = format!("/tenants/{}/security", tenant_id(&server, Some(&set.tenant)).await?);
            let Security { own, .. } = server.get(&path).await?;
            let trusted_networks = match (set.trust_everywhere, set.trusted_networks.is_empty()) {
                (true, _) => Vec::new(),
                (false, true) => own.trusted_networks,
                (false, false) => set.trusted_networks,
            };
            let policy = SecurityPolicy {
                idle_minutes: set.idle_minutes.unwrap_or(own.idle_minutes),
                second_factor: set.second_factor.unwrap_or(own.second_factor),
                trusted_networks,
            };
            print_security(&server.put(&path, &policy).await?, set.output)
        }
    }
}

fn print_recovery(recovery: &Recovery) -> io::Result<()> {
    let Recovery { id, state, new_email, due_ns, .. } = recovery;
    let when = table::time(*due_ns);
    writeln!(io::stdout(), "Recovery {id} to {new_email} is {state}; it takes effect at (UTC): {when}.")
}

pub(crate) async fn recovery(settings: &CommonSettings, command: RecoveryCommand) -> Result<(), CommandError> {
    let server = find(settings)?;
    match command {
        RecoveryCommand::Ask { user, new_email, reason } => {
            let path = format!("/users/{}/recovery", checked(&user)?);
            print_recovery(&server.post(&path, &AskRecovery { new_email, reason }).await?)?;
        }
        RecoveryCommand::List(output) => {
            let page: Page<Recovery> = server.get("/recoveries?limit=200").await?;
            if output.json {
                return print_json(&page);
            }
            let row = |one: &Recovery| {
                vec![
                    one.id.clone(),
                    one.user.clone(),
                    one.new_email.clone(),
                    one.state.clone(),
                    one.asked_by.clone(),
                    one.approved_by.clone().unwrap_or("-".into()),
                    table::time(one.due_ns),
                ]
            };
            let head = ["RECOVERY", "USER", "NEW ADDRESS", "STATE", "ASKED BY", "AGREED", "EFFECTIVE (UTC)"];
            table::print(&head, &page.items.iter().map(row).collect::<Vec<_>>())?;
        }
        RecoveryCommand::Approve { id } => {
            let path = format!("/recoveries/{}/approve", checked(&id)?);
            print_recovery(&server.post(&path, &()).await?)?;
        }
        RecoveryCommand::Cancel { id } => {
            print_recovery(&server.delete(&format!("/recoveries/{}", checked(&id)?)).await?)?;
        }
    }
    Ok(())
}
