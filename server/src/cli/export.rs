//! `holdfastd export`: database dumps made ready for download over SFTP, through the API of the running server.

use crate::cli::accounts::{Output, find, print_json};
use crate::cli::tenant::{find_tenant, quoted};
use crate::cli::{CommandError, table};
use crate::config::CommonSettings;
use api::exports::{
    Export, ExportAccess, ExportDownload, ExportDownloads, ExportKey, ExportKeys, ExportTermsText, NewExportKey,
    RefuseExport, RequestExport,
};
use api::page::Page;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[derive(Subcommand, Debug)]
pub(crate) enum ExportCommand {
    /// List exports, the newest first.
    List {
        /// Only those of this tenant: name or id.
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Show an export.
    Show(One),
    /// Ask for an export of what a plan dumps, as somebody who may.
    #[command(after_help = "Example:\n  holdfastd --token-file admin.token export request PLAN")]
    Request {
        /// Plan id.
        plan: String,
        /// Take the newest complete dump while the agent is away.
        #[arg(long)]
        newest_will_do: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Let an export that waits for it go on.
    Release(One),
    /// Refuse an export that waits; another one may be asked for at once.
    Refuse {
        /// Export id.
        id: String,
        /// Why, for the customer.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        output: Output,
    },
    /// Print the terms of download.
    Terms,
    /// Accept the terms and get a key for a ready export, in files that only their owner reads.
    #[command(after_help = "Examples:\n  \
        holdfastd --token-file admin.token export key EXPORT --accept-terms 2026-11 --to .\n  \
        holdfastd --token-file admin.token export key EXPORT --accept-terms 2026-11 --own ~/.ssh/id_ed25519.pub")]
    Key(KeyArguments),
    /// List the keys of an export.
    Keys(One),
    /// Take a key back; connections with it end.
    Revoke {
        /// Export id.
        id: String,
        /// Key id.
        key: String,
        #[command(flatten)]
        output: Output,
    },
    /// List downloads of an export.
    Downloads(One),
}

#[derive(Args, Debug)]
pub(crate) struct One {
    /// Export id.
    id: String,
    #[command(flatten)]
    output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct KeyArguments {
    /// Export id.
    id: String,
    /// Version of the terms, from `export terms`.
    #[arg(long, value_name = "VERSION")]
    accept_terms: String,
    /// The customer's own public key: a file as OpenSSH writes it.
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    own: Option<PathBuf>,
    /// Directory for export.pem, export.key and export.ppk.
    #[arg(long, value_name = "DIR", default_value = ".")]
    to: PathBuf,
    /// Networks from which it is taken, with commas.
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',')]
    networks: Vec<String>,
    #[command(flatten)]
    output: Output,
}

/// A word as it stands on the wire.
fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).ok();
    value.as_ref().and_then(serde_json::Value::as_str).unwrap_or("-").to_owned()
}

fn print(exports: &[Export]) -> Result<(), CommandError> {
    let row = |export: &Export| {
        let verified = match export.bytes_total {
            Some(total) if total > 0 => format!("{} %", export.bytes_done.saturating_mul(100) / total),
            _ => "-".into(),
        };
        vec![
            export.id.clone(),
            word(&export.state),
            export.plan.clone(),
            export.asked_by.clone(),
            table::time(Some(export.requested_ns)),
            verified,
            table::time(export.expires_ns),
            export.error.clone().unwrap_or_default(),
        ]
    };
    let head = ["EXPORT", "STATE", "PLAN", "ASKED BY", "ASKED (UTC)", "VERIFIED", "UNTIL (UTC)", "ERROR"];
    Ok(table::print(&head, &exports.iter().map(row).collect::<Vec<_>>())?)
}

fn show(export: Export, output: Output) -> Result<(), CommandError> {
    if output.json { print_json(&export) } else { print(&[export]) }
}

fn print_keys(keys: &[ExportKey]) -> Result<(), CommandError> {
    let row = |key: &ExportKey| {
        let ended = key.revoked_ns.is_some();
        vec![
            key.id.clone(),
            key.fingerprint.clone(),
            if ended { "revoked".into() } else { String::new() },
            table::time(Some(key.expires_ns)),
            key.networks.join(","),
            table::time(key.used_ns),
        ]
    };
    let head = ["KEY", "FINGERPRINT", "", "UNTIL (UTC)", "NETWORKS", "LAST USED (UTC)"];
    Ok(table::print(&head, &keys.iter().map(row).collect::<Vec<_>>())?)
}

/// A new file that only its owner reads.
fn write_private(path: &Path, text: &str) -> Result<(), CommandError> {
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = written.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| CommandError::Refused(format!("{}: {error}", path.display())))
}

fn hand_over(access: &ExportAccess, to: &Path) -> Result<(), CommandError> {
    for (name, text) in [("export.pem", &access.pem), ("export.key", &access.openssh), ("export.ppk", &access.ppk)] {
        if let Some(text) = text {
            write_private(&to.join(name), text)?;
        }
    }
    let mut out = io::stdout().lock();
    writeln!(out, "Host  {}\nPort  {}\nUser  {}\n", access.host, access.port, access.user)?;
    for (program, line) in &access.commands {
        writeln!(out, "{program}\n  {line}")?;
    }
    writeln!(out, "\nLines for known_hosts:")?;
    for line in &access.known_hosts {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}

pub(crate) async fn export(settings: &CommonSettings, command: ExportCommand) -> Result<(), CommandError> {
    let server = find(settings)?;
    let path = |id: &str, rest: &str| format!("/exports/{}{rest}", quoted(id));
    match command {
        ExportCommand::List { tenant, output } => {
            let filter = match tenant {
                Some(named) => format!("tenant={}&", find_tenant(&server, &named).await?.id),
                None => String::new(),
            };
            let (mut items, mut after) = (Vec::new(), String::new());
            loop {
                let page: Page<Export> = server.get(&format!("/exports?{filter}limit=200{after}")).await?;
                items.extend(page.items);
                match page.next {
                    Some(next) => after = format!("&after={}", quoted(&next)),
                    None => break,
                }
            }
            if output.json { print_json(&Page { items, next: None }) } else { print(&items) }
        }
        ExportCommand::Show(One { id, output }) => show(server.get(&path(&id, "")).await?, output),
        ExportCommand::Request { plan, newest_will_do, output } => {
            show(server.post("/exports", &RequestExport { plan, newest_will_do }).await?, output)
        }
        ExportCommand::Release(One { id, output }) => show(server.post(&path(&id, "/release"), &()).await?, output),
        ExportCommand::Refuse { id, reason, output } => {
            show(server.post(&path(&id, "/refuse"), &RefuseExport { reason }).await?, output)
        }
        ExportCommand::Terms => {
            let terms: ExportTermsText = server.get("/export-terms").await?;
            Ok(writeln!(io::stdout(), "Version {}\n\n{}", terms.version, terms.text)?)
        }
        ExportCommand::Key(KeyArguments { id, accept_terms, own, to, networks, output }) => {
            let public_key = match own {
                Some(file) => Some(
                    std::fs::read_to_string(&file)
                        .map_err(|error| CommandError::Refused(format!("{}: {error}", file.display())))?,
                ),
                None => None,
            };
            let new = NewExportKey { terms_version: accept_terms, public_key, networks, expires_ns: None };
            let access: ExportAccess = server.post(&path(&id, "/keys"), &new).await?;
            if output.json { print_json(&access) } else { hand_over(&access, &to) }
        }
        ExportCommand::Keys(One { id, output }) => {
            let keys: ExportKeys = server.get(&path(&id, "/keys")).await?;
            if output.json { print_json(&keys) } else { print_keys(&keys.items) }
        }
        ExportCommand::Revoke { id, key, output } => {
            let revoked: ExportKey = server.delete(&path(&id, &format!("/keys/{}", quoted(&key)))).await?;
            if output.json { print_json(&revoked) } else { print_keys(&[revoked]) }
        }
        ExportCommand::Downloads(One { id, output }) => {
            let found: ExportDownloads = server.get(&path(&id, "/downloads")).await?;
            if output.json {
                return print_json(&found);
            }
            let row = |download: &ExportDownload| {
                vec![
                    table::time(Some(download.began_ns)),
                    download.address.clone(),
                    download.program.clone(),
                    download.path.clone(),
                    download.bytes.to_string(),
                    if download.is_complete { "complete".into() } else { "in part".into() },
                ]
            };
            let head = ["BEGAN (UTC)", "ADDRESS", "PROGRAM", "FILE", "BYTES", ""];
            Ok(table::print(&head, &found.items.iter().map(row).collect::<Vec<_>>())?)
        }
    }
}
