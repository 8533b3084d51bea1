//! How a snapshot becomes a database again, for people, in the words of the database's own programs. What stands here is
//! what the tests do.

use super::DatabaseLogin;
use std::path::Path;

/// Which snapshots the commands choose from: several computers may have a series of one name.
#[derive(Clone, Copy)]
pub(super) struct Snapshots<'a> {
    pub(super) computer: &'a str,
    pub(super) series: &'a str,
}

impl Snapshots<'_> {
    fn options(self) -> String {
        format!("--computer {} --series {}", quoted(self.computer), quoted(self.series))
    }
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@=%+,".contains(&byte);
    match !word.is_empty() && word.bytes().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

pub(super) fn postgresql(login: &DatabaseLogin, of: Snapshots<'_>) -> String {
    let of = of.options();
    let cat = |ending: &str| {
        let path = quoted(&format!("/{}", login.file_name(ending)));
        format!("holdfast cat latest {of} {path}")
    };
    let database = quoted(&super::postgresql::connection_text(&login.database));
    format!(
        "How to bring this PostgreSQL database back. Run the commands as a superuser of the cluster (sudo -u postgres);\n\
         instead of `latest`, any snapshot of `holdfast snapshots {of}` may stand.\n\
         \n\
         1. On a new cluster: the roles. Errors about roles that exist already do no harm.\n\
         \n\
         \x20  {globals} | psql -d postgres\n\
         \n\
         2. The database itself, empty, with its owner, encoding and settings; then what is in it.\n\
         \n\
         \x20  {create} | psql -d postgres\n\
         \x20  {dump} | psql --set ON_ERROR_STOP=1 --single-transaction -d {database}\n\
         \n\
         Beside the present one, under another name:\n\
         \n\
         \x20  createdb --template=template0 restored\n\
         \x20  {dump} | psql --set ON_ERROR_STOP=1 --single-transaction -d restored\n",
        globals = cat(".globals.sql"),
        create = cat(".create.sql"),
        dump = cat(".sql"),
    )
}

pub(super) fn mariadb(login: &DatabaseLogin, of: Snapshots<'_>) -> String {
    let of = of.options();
    let cat = |ending: &str| {
        let path = quoted(&format!("/{}", login.file_name(ending)));
        format!("holdfast cat latest {of} {path}")
    };
    let database = quoted(&login.database);
    format!(
        "How to bring this MariaDB or MySQL database back. Run the commands as an administrator of the server (with MySQL\n\
         the program is called `mysql`); instead of `latest`, any snapshot of `holdfast snapshots {of}` may stand.\n\
         \n\
         1. The database itself, empty, with its character set; then what is in it. Tables of the same names are replaced.\n\
         \n\
         \x20  {create} | mariadb\n\
         \x20  {dump} | mariadb --default-character-set=utf8mb4 {database}\n\
         \n\
         2. On a new server, where the backup has them: the accounts and their rights. Accounts that exist are refused.\n\
         \n\
         \x20  {users} | mariadb --force\n\
         \n\
         Beside the present one, under another name:\n\
         \n\
         \x20  mariadb -e 'create database restored'\n\
         \x20  {dump} | mariadb --default-character-set=utf8mb4 restored\n",
        create = cat(".create.sql"),
        dump = cat(".sql"),
        users = cat(".users.sql"),
    )
}

pub(super) fn sqlite(name: &str, path: &Path, of: Snapshots<'_>) -> String {
    let of = of.options();
    let path = quoted(&path.to_string_lossy());
    format!(
        "How to bring this SQLite database back. Instead of `latest`, any snapshot of\n\
         `holdfast snapshots {of}` may stand.\n\
         \n\
         1. Stop the programs that use it.\n\
         2. Put the file in its place, and remove what belongs to the old one; the owner must be the one it had:\n\
         \n\
         \x20  holdfast cat latest {of} {name} > {path}.restored\n\
         \x20  sqlite3 {path}.restored 'PRAGMA integrity_check'\n\
         \x20  rm -f {path}-wal {path}-shm {path}-journal\n\
         \x20  mv {path}.restored {path}\n",
        name = quoted(&format!("/{name}")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::databases::DatabaseSource;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("postgresql:shop@db1:5432"), "postgresql:shop@db1:5432");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
        let source = DatabaseSource::Postgresql(DatabaseLogin::new("my shop"));
        let text = source.instructions("Anna's", &source.series());
        let expected = r"cat latest --computer 'Anna'\''s' --series 'postgresql:my shop' '/my shop.sql' | psql";
        assert!(text.contains(expected), "{text}");
    }
}
