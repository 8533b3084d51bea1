//! Databases as sources of a backup: dumps by the database's own programs, streamed, in a form that deduplicates, with
//! what is needed to bring them back with the database's own programs written beside them.
//!
//! | kind | files in the snapshot |
//! |---|---|
//! | PostgreSQL | `NAME.sql`, `NAME.create.sql` (the database itself and its settings), `NAME.globals.sql` (roles, tablespaces), `NAME.restore.txt` |
//! | MariaDB, MySQL | `NAME.sql`, `NAME.create.sql`, `NAME.users.sql` (accounts, where the program can), `NAME.restore.txt` |
//! | SQLite | the file, as one consistent state, and `NAME.restore.txt` |
//!
//! A dump that does not end well fails the backup: nothing is committed.

mod instructions;
mod mariadb;
mod postgresql;
mod secret;
mod sqlite;

use crate::backup::{Source, Stream, StreamInput};
use crate::connection::Connection;
use crate::error::AgentError;
use crate::program::{Group, Program};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest output of the small programs, whose output is kept in memory, bytes.
const SMALL_OUTPUT_BYTES_MAX: u64 = 64 << 20;

/// A database to be backed up. As JSON: `{"kind": "postgresql", "database": "shop", …}`,
/// `{"kind": "mariadb", "database": "shop", …}`, `{"kind": "sqlite", "path": "/srv/app.db"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DatabaseSource {
    /// One database of a PostgreSQL cluster, with the cluster's roles and tablespaces.
    Postgresql(DatabaseLogin),
    /// One database of a MariaDB or MySQL server, with the server's accounts.
    Mariadb(DatabaseLogin),
    /// An SQLite database.
    Sqlite {
        /// Absolute path of its file.
        path: PathBuf,
    },
}

/// How a database is reached. What is not given is up to the database's client program, which also reads its own
/// files (`~/.pgpass`, `~/.my.cnf`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseLogin {
    /// Its name.
    pub database: String,
    /// Host, or absolute path: of a socket's directory for PostgreSQL, of the socket for MariaDB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// User of the database server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// File on this computer whose first line is the password; only its owner may be able to read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// System account under which the dump runs, for servers that ask the system who is there. When it is not given,
    /// root becomes `postgres` for a PostgreSQL server behind a socket, unless a user is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

impl DatabaseLogin {
    /// Of this database, with everything else as the client program has it.
    pub fn new(database: &str) -> Self {
        DatabaseLogin { database: database.to_owned(), ..DatabaseLogin::default() }
    }

    /// Whether the server is behind a socket of this computer, as far as this says.
    fn is_local(&self) -> bool {
        self.host.as_deref().is_none_or(|host| host.starts_with('/'))
    }

    fn checked(&self) -> Result<(), AgentError> {
        let texts = [Some(&self.database), self.host.as_ref(), self.user.as_ref(), self.account.as_ref()];
        if self.database.is_empty() || texts.into_iter().flatten().any(|text| text.contains(['\0', '\n', '\r'])) {
            return Err(AgentError::Usage("a database needs a name, and names have no line breaks".into()));
        }
        if self.password_file.is_some() && self.account.is_some() {
            return Err(AgentError::Usage("a password file and an account exclude each other".into()));
        }
        Ok(())
    }

    /// `@host:port`, where they are given.
    fn place(&self) -> String {
        match (&self.host, self.port) {
            (None, None) => String::new(),
            (host, port) => {
                let port = port.map(|port| format!(":{port}")).unwrap_or_default();
                format!("@{}{port}", host.as_deref().unwrap_or_default())
            }
        }
    }

    /// Name of a file in the snapshot: a database's name may hold what a file's name may not.
    fn file_name(&self, ending: &str) -> String {
        format!("{}{ending}", self.database.replace('/', "%2F"))
    }
}

impl DatabaseSource {
    /// The series of its snapshots unless another is named: `postgresql:shop`, `mariadb:shop@db1:3307`,
    /// `sqlite:/srv/app.db`.
    pub fn series(&self) -> String {
        match self {
            DatabaseSource::Postgresql(login) => format!("postgresql:{}{}", login.database, login.place()),
            DatabaseSource::Mariadb(login) => format!("mariadb:{}{}", login.database, login.place()),
            DatabaseSource::Sqlite { path } => format!("sqlite:{}", path.display()),
        }
    }

    /// How a snapshot of this computer and series becomes a database again, for people. Also in the snapshot, as
    /// [`Self::instructions_name`].
    pub fn instructions(&self, computer: &str, series: &str) -> String {
        let of = instructions::Snapshots { computer, series };
        match self {
            DatabaseSource::Postgresql(login) => instructions::postgresql(login, of),
            DatabaseSource::Mariadb(login) => instructions::mariadb(login, of),
            DatabaseSource::Sqlite { path } => instructions::sqlite(&sqlite::file_name(path), path, of),
        }
    }

    /// Name of the file with the instructions in its snapshots.
    pub fn instructions_name(&self) -> String {
        match self {
            DatabaseSource::Postgresql(login) | DatabaseSource::Mariadb(login) => login.file_name(".restore.txt"),
            DatabaseSource::Sqlite { path } => format!("{}.restore.txt", sqlite::file_name(path)),
        }
    }

    /// Makes it ready to be backed up: what is small is read at once, the dump starts when its turn comes. What cannot
    /// be had beside the dump itself becomes a warning of the run. `computer` and `name` are those of the snapshot; a
    /// series without a name of its own is called [`Self::series`]. `group` can end the programs, whatever they wait for.
    ///
    /// # Errors
    ///
    /// `Usage` for a login that cannot work, `CommandFailed` when a program is missing or refuses.
    pub fn open(
        &self,
        connection: &Connection,
        computer: &str,
        name: Option<&str>,
        group: Option<&Group>,
    ) -> Result<Source, AgentError> {
        let series = name.map_or_else(|| self.series(), ToOwned::to_owned);
        let Dump { mut streams, warnings } = match self {
            DatabaseSource::Postgresql(login) => {
                login.checked()?;
                postgresql::dump(login, connection.login.token().as_bytes(), group)?
            }
            DatabaseSource::Mariadb(login) => {
                login.checked()?;
                mariadb::dump(login, group)?
            }
            DatabaseSource::Sqlite { path } => sqlite::dump(path, &connection.folders.cache, group)?,
        };
        streams.push(small(self.instructions_name(), self.instructions(computer, &series).into_bytes()));
        Ok(Source::Streams { series, streams, warnings })
    }
}

/// What a database is backed up as.
struct Dump {
    streams: Vec<Stream>,
    warnings: Vec<String>,
}

/// A file whose bytes are there already.
fn small(name: String, bytes: Vec<u8>) -> Stream {
    Stream { name, input: StreamInput::Reader(Box::new(std::io::Cursor::new(bytes))) }
}

fn large(name: String, program: Program) -> Stream {
    Stream { name, input: StreamInput::Command(Box::new(program)) }
}

/// A program of a dump, in the group that can end it where there is one.
fn program(command: Command, group: Option<&Group>) -> Program {
    let program = Program::new(command);
    match group {
        Some(group) => program.in_group(group),
        None => program,
    }
}

/// Runs `command` under a system account. Only root can.
fn run_as(command: &mut Command, account: &str) -> Result<(), AgentError> {
    use std::os::unix::process::CommandExt;
    let found = nix::unistd::User::from_name(account).ok().flatten();
    let user = found.ok_or_else(|| AgentError::Usage(format!("this computer has no account {account}")))?;
    if user.uid.as_raw() != rustix::process::geteuid().as_raw() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    // Its own files, not those of this program's account; and a folder it may be in.
    command.env("HOME", &user.dir).env("USER", account).env("LOGNAME", account).current_dir("/");
    Ok(())
}

fn account_exists(account: &str) -> bool {
    nix::unistd::User::from_name(account).is_ok_and(|user| user.is_some())
}

/// The first of some programs that is installed, and what `--help` says of its options.
fn installed(names: &[&str], package: &str, help: &[&str]) -> Result<(PathBuf, String), AgentError> {
    let folders: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    let found = names.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|path| runs(path)));
    let Some(path) = found else {
        let names = names.join(", ");
        return Err(AgentError::CommandFailed(format!("{names}: not installed (Debian package {package})")));
    };
    let mut command = Command::new(&path);
    command.args(help);
    let said = Program::new(command).output(SMALL_OUTPUT_BYTES_MAX)?;
    Ok((path, String::from_utf8_lossy(&said).into_owned()))
}

fn runs(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|stat| stat.is_file() && stat.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_written_as_plans_write_them() {
        let text = r#"{"kind":"postgresql","database":"shop","host":"db1","port":5433,"user":"backup","password_file":"/etc/p"}"#;
        let source: DatabaseSource = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&source).unwrap(), text);
        assert_eq!(source.series(), "postgresql:shop@db1:5433");
        let source: DatabaseSource = serde_json::from_str(r#"{"kind":"mariadb","database":"a/b"}"#).unwrap();
        assert_eq!(source, DatabaseSource::Mariadb(DatabaseLogin::new("a/b")));
        assert_eq!(source.instructions_name(), "a%2Fb.restore.txt");
        let source: DatabaseSource = serde_json::from_str(r#"{"kind":"sqlite","path":"/srv/app.db"}"#).unwrap();
        assert_eq!(
            (source.series().as_str(), source.instructions_name().as_str()),
            ("sqlite:/srv/app.db", "app.db.restore.txt")
        );
    }

    #[test]
    fn a_login_that_cannot_work_is_refused() {
        assert!(DatabaseLogin::new("shop").checked().is_ok());
        assert!(DatabaseLogin::new("").checked().is_err());
        assert!(DatabaseLogin::new("a\nb").checked().is_err());
        let both = DatabaseLogin {
            password_file: Some("/p".into()),
            account: Some("postgres".into()),
            ..DatabaseLogin::new("shop")
        };
        assert!(both.checked().is_err());
    }
}
