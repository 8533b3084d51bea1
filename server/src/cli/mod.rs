//! The command line: which commands there are, and where each is carried out.

mod accounts;
mod accounts_check;
mod audit;
mod care;
mod computer;
mod deletion;
mod export;
mod group;
mod identity;
mod jobs;
mod mail;
mod master_key;
mod quota;
mod service;
mod table;
mod tenant;
mod vault;
mod webhook;

use crate::config::{CommonArguments, CommonSettings, ConfigError, ServeArguments, Settings};
use crate::data_folder::DataFolderError;
use crate::local::LocalError;
use crate::master_key::MasterKeyError;
use crate::run::RunError;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// The Holdfast server.
#[derive(Parser, Debug)]
#[command(name = "holdfastd", version, about)]
pub struct Cli {
    #[command(flatten)]
    common: CommonArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the server. The first start makes keys, a certificate and an operator link, and says where everything is.
    Serve(Box<ServeArguments>),
    /// Users, each with a vault of its own (needs the running server).
    #[command(subcommand)]
    User(accounts::UserCommand),
    /// Vaults: what they hold and keep, their snapshots (needs the running server).
    #[command(subcommand)]
    Vault(vault::VaultCommand),
    /// The clock that retention goes by (needs the running server).
    #[command(subcommand)]
    Clock(vault::ClockCommand),
    /// Tokens of agents and operators (needs the running server).
    #[command(subcommand)]
    Token(accounts::TokenCommand),
    /// Invitations of people, customers and partners (needs the running server).
    #[command(subcommand)]
    Invitation(identity::InvitationCommand),
    /// What tenants ask of their people: second factor, idle time, trusted networks (needs the running server).
    #[command(subcommand)]
    Security(identity::SecurityCommand),
    /// Giving lost accounts back to their owners (needs the running server).
    #[command(subcommand)]
    Recovery(identity::RecoveryCommand),
    /// Quotas of vaults, users, customers and partners (needs the running server).
    #[command(subcommand)]
    Quota(quota::QuotaCommand),
    /// Tenants: partners and customers (needs the running server).
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// Groups of a partner's members, and what they may do for which customers (needs the running server).
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Computers that back up: enrol, start, restore, retire (needs the running server).
    #[command(subcommand)]
    Computer(computer::ComputerCommand),
    /// What computers back up, and when (needs the running server).
    #[command(subcommand)]
    Plan(computer::PlanCommand),
    /// Database dumps made ready for download over SFTP (needs the running server).
    #[command(subcommand)]
    Export(export::ExportCommand),
    /// What can be bought (needs the running server).
    #[command(subcommand)]
    Product(service::ProductCommand),
    /// What customers have bought, and what of it users were given (needs the running server).
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// Whether accounts and store agree (needs the running server).
    #[command(subcommand)]
    Accounts(accounts_check::AccountsCommand),
    /// Who did what, and whether the log of it is whole (needs the running server, but to verify an export).
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Mails of the server: whether they go out (needs the running server).
    #[command(subcommand)]
    Mail(mail::MailCommand),
    /// Backups and restores of agents, and their logs (needs the running server).
    #[command(subcommand)]
    Job(jobs::JobCommand),
    /// What is wrong: failed, missed and late backups, quotas, services (needs the running server).
    #[command(subcommand)]
    Notice(webhook::NoticeCommand),
    /// Being told by HTTP (needs the running server).
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    /// Make a new single-use operator link; links not yet used stop working (needs the running server).
    OperatorLink,
    /// The master key and its recovery sheet.
    #[command(subcommand)]
    MasterKey(master_key::MasterKeyCommand),
    /// Rebuild the index from packs and journals (needs the server stopped).
    RebuildIndex,
    /// Print the description of the API (OpenAPI 3.1, JSON).
    Openapi,
}

/// Why a command failed. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Data folder.
    #[error(transparent)]
    Folder(#[from] DataFolderError),
    /// The running server.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// Master key.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// Serving.
    #[error(transparent)]
    Run(#[from] RunError),
    /// What was asked for cannot be done.
    #[error("{0}")]
    Refused(String),
    /// Standard input or output.
    #[error("standard input or output: {0}")]
    Terminal(#[from] std::io::Error),
}

/// Carries the command line out. Exit codes: 0 done, 1 failed, 2 wrong arguments.
pub fn run() -> ExitCode {
    match carry_out(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to be done if standard error is gone as well.
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("holdfastd: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

fn carry_out(cli: Cli) -> Result<(), CommandError> {
    // Every file of the server is its own user's alone, also those that libraries make.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let Cli { common, command } = cli;
    if let Command::Serve(serve) = command {
        let settings = Settings::new(common, *serve)?;
        crate::telemetry::start(settings.common.log_format, &settings.common.log).map_err(CommandError::Refused)?;
        crate::open_files::raise_limit();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("holdfast").build()?;
        return Ok(runtime.block_on(crate::run::serve(settings))?);
    }
    let settings = CommonSettings::new(common)?;
    crate::telemetry::start(settings.log_format, &settings.log).map_err(CommandError::Refused)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Serve(_) => Ok(()),
            Command::User(command) => accounts::user(&settings, command).await,
            Command::Vault(command) => vault::vault(&settings, command).await,
            Command::Clock(command) => vault::clock(&settings, command).await,
            Command::Token(command) => accounts::token(&settings, command).await,
            Command::Invitation(command) => identity::invitation(&settings, command).await,
            Command::Security(command) => identity::security(&settings, command).await,
            Command::Recovery(command) => identity::recovery(&settings, command).await,
            Command::Quota(command) => quota::quota(&settings, command).await,
            Command::Tenant(command) => tenant::tenant(&settings, command).await,
            Command::Group(command) => group::group(&settings, command).await,
            Command::Computer(command) => computer::computer(&settings, command).await,
            Command::Plan(command) => computer::plan(&settings, command).await,
            Command::Export(command) => export::export(&settings, command).await,
            Command::Product(command) => service::product(&settings, command).await,
            Command::Service(command) => service::service(&settings, command).await,
            Command::Accounts(command) => accounts_check::accounts(&settings, command).await,
            Command::Audit(command) => audit::audit(&settings, command).await,
            Command::Mail(command) => mail::mail(&settings, command).await,
            Command::Job(command) => jobs::job(&settings, command).await,
            Command::Notice(command) => webhook::notice(&settings, command).await,
            Command::Webhook(command) => webhook::webhook(&settings, command).await,
            Command::OperatorLink => accounts::operator_link(&settings).await,
            Command::MasterKey(command) => master_key::master_key(&settings, command).await,
            Command::Openapi => {
                let document = crate::http::openapi_document().map_err(std::io::Error::from)?;
                Ok(std::io::Write::write_all(&mut std::io::stdout(), document.as_bytes())?)
            }
            Command::RebuildIndex => crate::run::rebuild_index(&settings).map_err(CommandError::from),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
