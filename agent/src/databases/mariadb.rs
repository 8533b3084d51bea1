//! MariaDB and MySQL: `mariadb-dump` or `mysqldump` in one transaction, one row a statement: statements of many rows end
//! where a buffer is full, so that one row more moves every end behind it, and with them what could be deduplicated.

use super::{DatabaseLogin, Dump, SMALL_OUTPUT_BYTES_MAX, installed, large, program, run_as, secret, small};
use crate::error::AgentError;
use crate::program::{Group, Program};
use std::path::PathBuf;
use std::process::Command;
use zeroize::Zeroizing;

/// Of the dump: consistent, byte for byte the same when the data is, everything that belongs to the database.
const DUMP: [&str; 11] = [
    "--single-transaction",
    "--quick",
    "--hex-blob",
    "--skip-dump-date",
    "--skip-extended-insert",
    "--no-autocommit",
    "--routines",
    "--events",
    "--triggers",
    "--no-tablespaces",
    "--default-character-set=utf8mb4",
];

struct Programs<'a> {
    login: &'a DatabaseLogin,
    dump: PathBuf,
    help: String,
    group: Option<&'a Group>,
}

pub(super) fn dump(login: &DatabaseLogin, group: Option<&Group>) -> Result<Dump, AgentError> {
    let names = ["mariadb-dump", "mysqldump"];
    let (dump, help) = installed(&names, "mariadb-client", &["--no-defaults", "--help"])?;
    let programs = Programs { login, dump, help, group };
    let mut warnings = Vec::new();
    // Without a lock on every table, which others would wait for, and which waits for others: nothing of them is read.
    let create =
        ["--no-data", "--no-create-info", "--skip-lock-tables", "--skip-triggers", "--skip-dump-date", "--databases"];
    let create = programs.program(&create, Some(&login.database))?.output(SMALL_OUTPUT_BYTES_MAX)?;
    let mut streams = vec![small(login.file_name(".create.sql"), create)];
    let mut arguments = DUMP.to_vec();
    // A dump that sets this cannot be read by a server with a history of its own.
    if programs.help.contains("--set-gtid-purged") {
        arguments.push("--set-gtid-purged=OFF");
    }
    streams.push(large(login.file_name(".sql"), programs.program(&arguments, Some(&login.database))?));
    match programs.accounts() {
        Ok(accounts) => streams.push(small(login.file_name(".users.sql"), accounts)),
        Err(error) => warnings.push(format!("the accounts of the server are not in this backup: {error}")),
    }
    Ok(Dump { streams, warnings })
}

impl Programs<'_> {
    fn accounts(&self) -> Result<Vec<u8>, AgentError> {
        if !self.help.contains("--system=") {
            return Err(AgentError::CommandFailed(format!("{} cannot dump them", self.dump.display())));
        }
        self.program(&["--system=users", "--skip-dump-date"], None)?.output(SMALL_OUTPUT_BYTES_MAX)
    }

    fn program(&self, arguments: &[&str], database: Option<&str>) -> Result<Program, AgentError> {
        let login = self.login;
        let mut command = Command::new(&self.dump);
        let mut secret = None;
        if let Some(path) = &login.password_file {
            let (file, path) = secret::in_memory(&option_file(&secret::read_password(path)?))?;
            let mut first = std::ffi::OsString::from("--defaults-extra-file=");
            first.push(path);
            // Only the first argument may be this one. A file of the account would be read later and win.
            command.arg(first).env("HOME", "/nonexistent").env_remove("MYSQL_PWD");
            secret = Some(file);
        }
        match &login.host {
            Some(socket) if socket.starts_with('/') => command.arg(format!("--socket={socket}")),
            Some(host) => command.arg(format!("--host={host}")),
            None => &mut command,
        };
        if let Some(port) = login.port {
            command.arg(format!("--port={port}"));
        }
        if let Some(user) = &login.user {
            command.arg(format!("--user={user}"));
        }
        command.args(arguments);
        if let Some(database) = database {
            command.args(["--", database]);
        }
        if let Some(account) = &login.account {
            run_as(&mut command, account)?;
        }
        Ok(program(command, self.group).with_secret(secret))
    }
}

/// A client option file with a password; quotes and backslashes are escaped.
fn option_file(password: &str) -> Zeroizing<String> {
    let escaped = Zeroizing::new(password.replace('\\', "\\\\").replace('"', "\\\""));
    Zeroizing::new(format!("[client]\npassword=\"{}\"\n", escaped.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_quoted() {
        assert_eq!(option_file(r#"a"b\c # d"#).as_str(), "[client]\npassword=\"a\\\"b\\\\c # d\"\n");
    }
}
