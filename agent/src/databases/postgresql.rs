//! PostgreSQL: `pg_dump` as plain text. Rows stand in it as they are, so that what did not change is the same bytes in
//! the next dump; the custom format holds times and offsets, and compresses across them.

use super::{
    DatabaseLogin, Dump, SMALL_OUTPUT_BYTES_MAX, account_exists, installed, large, program, run_as, secret, small,
};
use crate::error::AgentError;
use crate::program::{Group, Program};
use std::path::PathBuf;
use std::process::Command;

/// The account that PostgreSQL's packages make.
const ACCOUNT: &str = "postgres";
/// Longest wait for a lock that somebody else holds on a table, milliseconds.
const LOCK_WAIT_MS: u32 = 600_000;
/// What the key of a dump's `\restrict` is derived for.
const RESTRICT_CONTEXT: &str = "holdfast 2026-11-21 restrict key of pg_dump";

/// The programs of one dump.
struct Programs<'a> {
    login: &'a DatabaseLogin,
    pg_dump: PathBuf,
    pg_dumpall: PathBuf,
    /// `\restrict` stands in the dumps of newer versions with a random word, which a fixed one replaces.
    restrict_key: Option<String>,
    group: Option<&'a Group>,
}

pub(super) fn dump(login: &DatabaseLogin, key_material: &[u8], group: Option<&Group>) -> Result<Dump, AgentError> {
    let (pg_dump, help) = installed(&["pg_dump"], "postgresql-client", &["--help"])?;
    let (pg_dumpall, _) = installed(&["pg_dumpall"], "postgresql-client", &["--help"])?;
    let restrict_key = help.contains("--restrict-key").then(|| restrict_key(key_material));
    let programs = Programs { login, pg_dump, pg_dumpall, restrict_key, group };
    let mut warnings = Vec::new();
    let create = programs.database(&["--create", "--schema-only", "--schema=pg_toast"])?;
    let create = without_namespace(&create.output(SMALL_OUTPUT_BYTES_MAX)?);
    let mut streams = vec![small(login.file_name(".create.sql"), create)];
    match programs.globals() {
        Ok((globals, warning)) => {
            streams.push(small(login.file_name(".globals.sql"), globals));
            warnings.extend(warning);
        }
        Err(error) => warnings.push(format!("the roles of the cluster are not in this backup: {error}")),
    }
    let lock_wait = format!("--lock-wait-timeout={LOCK_WAIT_MS}");
    streams.push(large(login.file_name(".sql"), programs.database(&[&lock_wait])?));
    Ok(Dump { streams, warnings })
}

impl Programs<'_> {
    fn database(&self, arguments: &[&str]) -> Result<Program, AgentError> {
        let mut command = Command::new(&self.pg_dump);
        command
            .arg("--format=plain")
            .args(arguments)
            .arg(format!("--dbname={}", connection_text(&self.login.database)));
        self.connected(command)
    }

    /// Roles with their passwords where the user may read those, and a warning where they are missing.
    fn globals(&self) -> Result<(Vec<u8>, Option<String>), AgentError> {
        let globals = |arguments: &[&str]| {
            let mut command = Command::new(&self.pg_dumpall);
            // Through a database that may be connected to, whatever others there are.
            command.arg("--globals-only").args(arguments);
            command.arg(format!("--dbname={}", connection_text(&self.login.database)));
            self.connected(command)?.output(SMALL_OUTPUT_BYTES_MAX)
        };
        let first = match globals(&[]) {
            Ok(globals) => return Ok((globals, None)),
            Err(error) => error,
        };
        let globals = globals(&["--no-role-passwords"])?;
        Ok((globals, Some(format!("the roles in this backup have no passwords: {first}"))))
    }

    fn connected(&self, mut command: Command) -> Result<Program, AgentError> {
        let login = self.login;
        command.arg("--no-password");
        if let Some(host) = &login.host {
            command.arg(format!("--host={host}"));
        }
        if let Some(port) = login.port {
            command.arg(format!("--port={port}"));
        }
        if let Some(user) = &login.user {
            command.arg(format!("--username={user}"));
        }
        if let Some(key) = &self.restrict_key {
            command.arg(format!("--restrict-key={key}"));
        }
        if let Some(account) = &login.account {
            run_as(&mut command, account)?;
        } else if becomes_postgres(login) {
            run_as(&mut command, ACCOUNT)?;
        }
        let mut secret = None;
        if let Some(path) = &login.password_file {
            let line = zeroize::Zeroizing::new(pass_line(&secret::read_password(path)?));
            let (file, path) = secret::in_memory(&line)?;
            command.env("PGPASSFILE", path).env_remove("PGPASSWORD");
            secret = Some(file);
        }
        Ok(program(command, self.group).with_secret(secret))
    }
}

/// Packages let nobody but `postgres` in through the socket, and backups run as root.
fn becomes_postgres(login: &DatabaseLogin) -> bool {
    login.is_local()
        && login.user.is_none()
        && login.password_file.is_none()
        && rustix::process::geteuid().is_root()
        && ["PGUSER", "PGHOST", "PGSERVICE"].iter().all(|name| std::env::var_os(name).is_none())
        && account_exists(ACCOUNT)
}

/// A database's name as a connection string: alone it could be taken for one.
pub(super) fn connection_text(database: &str) -> String {
    format!("dbname='{}'", database.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The line of a password file that fits every server; colons and backslashes are escaped.
fn pass_line(password: &str) -> String {
    format!("*:*:*:*:{}\n", password.replace('\\', "\\\\").replace(':', "\\:"))
}

/// The word that ends a dump's restricted mode must not be known to whoever can write into the database, and must stay,
/// so that dumps differ only where the data does.
fn restrict_key(key_material: &[u8]) -> String {
    let key = blake3::derive_key(RESTRICT_CONTEXT, key_material);
    data_encoding::HEXLOWER.encode(&key)
}

/// `pg_dump --create` asked for a namespace without any tables of its own gives the database itself: its creation,
/// owner, settings, comment and rights. Takes that namespace out again.
fn without_namespace(dump: &[u8]) -> Vec<u8> {
    const ENTRY: &str = "\n--\n-- ";
    let text = String::from_utf8_lossy(dump);
    let about_namespace = |entry: &str| {
        entry.starts_with("Name: pg_toast; Type: SCHEMA;") || entry.starts_with("Name: SCHEMA pg_toast; Type: ")
    };
    let mut entries = text.split(ENTRY);
    let mut kept = entries.next().unwrap_or_default().to_owned();
    for entry in entries.filter(|entry| !about_namespace(entry)) {
        kept.push_str(ENTRY);
        kept.push_str(entry);
    }
    kept.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords_are_quoted() {
        assert_eq!(connection_text(r"it's\x = y"), r"dbname='it\'s\\x = y'");
        assert_eq!(pass_line(r"a:b\c"), "*:*:*:*:a\\:b\\\\c\n");
    }

    #[test]
    fn the_key_stays_and_depends_on_the_secret() {
        assert_eq!(restrict_key(b"one"), restrict_key(b"one"));
        assert_ne!(restrict_key(b"one"), restrict_key(b"two"));
        assert!(restrict_key(b"one").bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }

    #[test]
    fn only_the_namespace_goes() {
        let dump = "head\n\n--\n-- Name: shop; Type: DATABASE; Schema: -\n--\n\nCREATE DATABASE shop;\n\
            \n--\n-- Name: pg_toast; Type: SCHEMA; Schema: -; Owner: x\n--\n\nCREATE SCHEMA pg_toast;\n\
            \n--\n-- Name: SCHEMA pg_toast; Type: COMMENT; Schema: -\n--\n\nCOMMENT ON SCHEMA pg_toast IS 'y';\n\
            \n--\n-- Name: DATABASE shop; Type: ACL; Schema: -\n--\n\nGRANT CONNECT;\n\
            \n--\n-- PostgreSQL database dump complete\n--\n";
        let kept = String::from_utf8(without_namespace(dump.as_bytes())).unwrap();
        assert!(!kept.contains("pg_toast"), "{kept}");
        for part in ["head", "CREATE DATABASE", "GRANT CONNECT", "dump complete\n--\n"] {
            assert!(kept.contains(part), "{part}: {kept}");
        }
    }
}
