//! `holdfastd user`, `token` and `operator-link`: all through the API of the running server.

use crate::cli::deletion::{DeleteUser, delete_user};
use crate::cli::{CommandError, table};
use crate::config::CommonSettings;
use crate::data_folder::DataFolder;
use crate::local::LocalServer;
use api::accounts::{CreateToken, CreateUser, NewToken, OperatorLink, Right, TokenInfo, Tokens, User, Users};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use std::io::{self, Write};

#[derive(Subcommand, Debug)]
pub(crate) enum UserCommand {
    /// Create a user with a vault and a token, and print how to connect an agent.
    Add(AddUser),
    /// List users.
    List(Output),
    /// Delete a user with all vaults, for good. Prints a receipt for each.
    Delete(DeleteUser),
}

#[derive(Args, Debug)]
pub(crate) struct AddUser {
    /// Name, unique within the customer.
    name: String,
    /// Customer; created when new [default: default].
    #[arg(long, value_name = "NAME")]
    customer: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Subcommand, Debug)]
pub(crate) enum TokenCommand {
    /// Create a token and print how to use it.
    Add(AddToken),
    /// List tokens, without their secrets.
    List(Output),
    /// Revoke a token at once.
    Revoke {
        /// Token id, from the list.
        id: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct AddToken {
    /// Label for lists.
    name: String,
    /// Vault id; not for operators.
    #[arg(long, value_name = "ID")]
    vault: Option<String>,
    /// What it may do.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["backup", "restore"])]
    rights: Vec<RightName>,
    /// Seconds until it expires [default: never].
    #[arg(long, value_name = "SECONDS")]
    valid_seconds: Option<u64>,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RightName {
    /// Administer the server.
    Operator,
    /// Upload into the vault.
    Backup,
    /// Read the vault.
    Restore,
    /// Delete snapshots so that they can be brought back, and bring them back.
    Delete,
    /// Remove snapshots for good, at once or by retention.
    Purge,
    /// Shorten and lift holds.
    Hold,
}

/// How the result is printed.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Output {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `user add --json` prints.
#[derive(Serialize)]
struct AddedUser {
    user: User,
    token: NewToken,
    url: String,
    fingerprint: String,
}

pub(crate) fn print_json(value: &impl Serialize) -> Result<(), CommandError> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

fn print_login(server: &LocalServer, token: &NewToken) -> io::Result<()> {
    let (url, fingerprint) = (server.public_url(), server.fingerprint());
    let mut out = io::stdout().lock();
    writeln!(out, "Token (shown only now):\n\n    {}\n", token.secret)?;
    writeln!(out, "Connect an agent; it asks for the token:\n\n    holdfast login {url} --fingerprint {fingerprint}\n")
}

fn rights_text(rights: &[Right]) -> String {
    let names = rights.iter().map(|right| match right {
        Right::Operator => "operator",
        Right::Backup => "backup",
        Right::Restore => "restore",
        Right::Delete => "delete",
        Right::Purge => "purge",
        Right::Hold => "hold",
    });
    names.collect::<Vec<_>>().join(",")
}

pub(crate) fn find(settings: &CommonSettings) -> Result<LocalServer, CommandError> {
    Ok(LocalServer::find(&DataFolder::new(settings.data.clone()), settings.token_file.as_deref())?)
}

pub(crate) async fn user(settings: &CommonSettings, command: UserCommand) -> Result<(), CommandError> {
    let server = find(settings)?;
    match command {
        UserCommand::Add(AddUser { name, customer, output }) => {
            let user: User = server.post("/users", &CreateUser { name, customer }).await?;
            let request = CreateToken {
                name: format!("agent of {}", user.name),
                vault: user.vault.clone(),
                rights: vec![Right::Backup, Right::Restore],
                valid_seconds: None,
            };
            let token: NewToken = server.post("/tokens", &request).await?;
            if output.json {
                let (url, fingerprint) = (server.public_url().to_owned(), server.fingerprint());
                return print_json(&AddedUser { user, token, url, fingerprint });
            }
            writeln!(
                io::stdout(),
                "User {}/{} has the vault {}.\n",
                user.customer,
                user.name,
                user.vault.as_deref().unwrap_or("-")
            )?;
            print_login(&server, &token)?;
        }
        UserCommand::Delete(arguments) => return delete_user(settings, arguments).await,
        UserCommand::List(output) => {
            let users: Users = server.get("/users").await?;
            if output.json {
                return print_json(&users);
            }
            let row = |user: &User| {
                vec![
                    format!("{}/{}", user.customer, user.name),
                    user.vault.clone().unwrap_or("-".into()),
                    table::time(Some(user.created_ns)),
                ]
            };
            table::print(&["USER", "VAULT", "CREATED (UTC)"], &users.users.iter().map(row).collect::<Vec<_>>())?;
        }
    }
    Ok(())
}

pub(crate) async fn token(settings: &CommonSettings, command: TokenCommand) -> Result<(), CommandError> {
    let server = find(settings)?;
    match command {
        TokenCommand::Add(AddToken { name, vault, rights, valid_seconds, output }) => {
            let rights = rights
                .iter()
                .map(|right| match right {
                    RightName::Operator => Right::Operator,
                    RightName::Backup => Right::Backup,
                    RightName::Restore => Right::Restore,
                    RightName::Delete => Right::Delete,
                    RightName::Purge => Right::Purge,
                    RightName::Hold => Right::Hold,
                })
                .collect();
            let token: NewToken = server.post("/tokens", &CreateToken { name, vault, rights, valid_seconds }).await?;
            if output.json {
                return print_json(&token);
            }
            if token.vault.is_some() {
                print_login(&server, &token)?;
            } else {
                writeln!(io::stdout(), "Token (shown only now):\n\n    {}\n", token.secret)?;
            }
        }
        TokenCommand::List(output) => {
            let tokens: Tokens = server.get("/tokens").await?;
            if output.json {
                return print_json(&tokens);
            }
            let row = |token: &TokenInfo| {
                vec![
                    token.id.clone(),
                    token.name.clone(),
                    rights_text(&token.rights),
                    token.vault.clone().unwrap_or("-".into()),
                    table::time(token.expires_ns),
                    table::time(token.revoked_ns),
                    table::time(token.used_ns),
                ]
            };
            let head = ["TOKEN", "NAME", "RIGHTS", "VAULT", "EXPIRES (UTC)", "REVOKED", "LAST USED"];
            table::print(&head, &tokens.tokens.iter().map(row).collect::<Vec<_>>())?;
        }
        TokenCommand::Revoke { id } => {
            if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(CommandError::Refused("a token id is 16 hexadecimal digits, see `token list`".into()));
            }
            let token: TokenInfo = server.delete(&format!("/tokens/{id}")).await?;
            writeln!(io::stdout(), "Token {} ({}) is revoked.", token.id, token.name)?;
        }
    }
    Ok(())
}

pub(crate) async fn operator_link(settings: &CommonSettings) -> Result<(), CommandError> {
    let link: OperatorLink = find(settings)?.post("/operator-link", &()).await?;
    writeln!(io::stdout(), "Answers one POST with an operator's token:\n\n    {}\n", link.url)?;
    Ok(())
}
