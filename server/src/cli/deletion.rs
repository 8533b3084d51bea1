//! `holdfastd vault delete` and `user delete`: for good, with a receipt, through the API of the running server.

use crate::cli::CommandError;
use crate::cli::accounts::{Output, find, print_json};
use crate::cli::table;
use crate::cli::vault::find_vault;
use crate::config::CommonSettings;
use api::deletion::{DeletedUser, DeletedVault};
use clap::Args;
use control::UserName;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::io::{self, Write};

#[derive(Args, Debug)]
#[command(after_help = "Example:
  holdfastd vault delete default/anna/archive --confirm default/anna/archive")]
pub(crate) struct DeleteVault {
    /// The vault: its id, USER or CUSTOMER/USER for a user's first one, CUSTOMER/USER/NAME for a further one.
    name: String,
    /// The same again: nothing brings a deleted vault back.
    #[arg(long, value_name = "NAME")]
    confirm: String,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct DeleteUser {
    /// The user: [CUSTOMER/]USER.
    name: String,
    /// The same again: nothing brings the user's vaults back.
    #[arg(long, value_name = "NAME")]
    confirm: String,
    #[command(flatten)]
    output: Output,
}

fn check_confirmed(name: &str, confirm: &str) -> Result<(), CommandError> {
    match name == confirm {
        true => Ok(()),
        false => Err(CommandError::Refused(format!("--confirm must repeat {name}: nothing brings it back"))),
    }
}

/// A name as part of a path or of a query.
fn quoted(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

fn receipt(out: &mut impl Write, deleted: &DeletedVault) -> io::Result<()> {
    writeln!(out, "Vault {} ({}) is deleted.", deleted.name, deleted.vault)?;
    writeln!(out, "  decided       {} UTC", table::time(Some(deleted.decided_ns)))?;
    writeln!(out, "  finished      {} UTC", table::time(Some(deleted.finished_ns)))?;
    writeln!(out, "  removed       {} packs, {} bytes; {} tokens", deleted.packs, deleted.pack_bytes, deleted.tokens)?;
    writeln!(
        out,
        "  its key       is in no keyring of this server. Copies of keyring.a and keyring.b made before now (generation \
         {} or less), in your backups of the data folder, still hold it, sealed by the master key: destroy them, or wait \
         until those backups expire.",
        deleted.keyring_generation.saturating_sub(1)
    )
}

pub(crate) async fn delete_vault(settings: &CommonSettings, arguments: DeleteVault) -> Result<(), CommandError> {
    let DeleteVault { name, confirm, output } = arguments;
    check_confirmed(&name, &confirm)?;
    let server = find(settings)?;
    let vault = find_vault(&server, &name).await?;
    let full = format!("{}/{}", vault.user, vault.name);
    let deleted: DeletedVault =
        server.delete_at_leisure(&format!("/vaults/{}?confirm={}", vault.id, quoted(&full))).await?;
    if output.json {
        return print_json(&deleted);
    }
    Ok(receipt(&mut io::stdout().lock(), &deleted)?)
}

pub(crate) async fn delete_user(settings: &CommonSettings, arguments: DeleteUser) -> Result<(), CommandError> {
    let DeleteUser { name, confirm, output } = arguments;
    check_confirmed(&name, &confirm)?;
    let user = UserName::parse(&name).map_err(|error| CommandError::Refused(error.to_string()))?;
    let path =
        format!("/users/{}/{}?confirm={}", quoted(&user.customer), quoted(&user.user), quoted(&user.to_string()));
    let deleted: DeletedUser = find(settings)?.delete_at_leisure(&path).await?;
    if output.json {
        return print_json(&deleted);
    }
    let mut out = io::stdout().lock();
    for vault in &deleted.vaults {
        receipt(&mut out, vault)?;
    }
    writeln!(out, "User {} is deleted.", deleted.user)?;
    Ok(())
}
