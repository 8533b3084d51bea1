//! The command line as a person types it; nothing here does anything.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// What says nothing of a database.
const NO_DATABASE: [&str; 6] = ["paths", "stdin", "exclude", "exclude_file", "exclude_caches", "one_file_system"];

/// Back up directories and database dumps to a Holdfast server, and bring any version back.
#[derive(Parser, Debug)]
#[command(name = "holdfast", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "Examples:
  holdfast login https://backup.example.org --fingerprint sha256:… --token-file token
  holdfast backup /etc /home --exclude '*.tmp'
  holdfast backup --postgresql shop
  holdfast restore latest --path /etc --to /tmp/restored

Exit codes: 0 complete; 3 finished, but some files could not be read, restored or verified; 1 failed.")]
pub struct Arguments {
    /// One JSON object per line on standard output.
    #[arg(long, global = true)]
    pub json: bool,
    /// Results and warnings only.
    #[arg(long, short, global = true, conflicts_with = "json")]
    pub quiet: bool,
    /// How long to go on trying while the server is away, busy or full.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 900)]
    pub patience: u64,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Remember a server and prove who you are.
    Login(LoginArguments),
    /// Make this computer one of yours on a server, for `holdfast run`.
    Enrol(EnrolArguments),
    /// Run as a service: back up by the plans that the server has for this computer.
    Run(RunArguments),
    /// Forget the server and the token.
    Logout,
    /// Back directories, databases, standard input or a command's output up.
    Backup(Box<BackupArguments>),
    /// List snapshots, oldest first; deleted and held ones are marked.
    Snapshots(FilterArguments),
    /// Delete snapshots, by name or by what a rule does not keep; they can be brought back for some days.
    Forget(ForgetArguments),
    /// Bring deleted snapshots back.
    Undelete(UndeleteArguments),
    /// Add tags to snapshots, or take them away.
    Tag(TagArguments),
    /// Hold snapshots: until a date nobody can remove them.
    Hold(HoldArguments),
    /// List a folder of a snapshot.
    Ls(LsArguments),
    /// Find a file in all snapshots: one line per version.
    Find(FindArguments),
    /// Show what differs between two snapshots: + added, - removed, M content, m metadata.
    Diff(DiffArguments),
    /// Bring a snapshot, or paths of it, back as files.
    Restore(RestoreArguments),
    /// Write one file of a snapshot to standard output.
    Cat(CatArguments),
    /// Check that everything snapshots need is on the server and sound.
    Check(CheckArguments),
}

/// `login`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  holdfast login https://backup.example.org:8443 --fingerprint sha256:… --token-file token
  pass show holdfast | holdfast login https://backup.example.org --token-stdin
  HOLDFAST_TOKEN=hf_… holdfast login https://backup.example.org --ca company.pem")]
pub struct LoginArguments {
    /// `https://HOST[:PORT]`.
    pub url: String,
    /// Trust exactly the certificate with this fingerprint (the server prints it at its first start).
    #[arg(long, value_name = "sha256:HEX", conflicts_with = "ca")]
    pub fingerprint: Option<String>,
    /// Trust certificates issued by an authority in this PEM file.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Read the token from a file.
    #[arg(long, value_name = "FILE", group = "token_source")]
    pub token_file: Option<PathBuf>,
    /// Read the token from standard input.
    #[arg(long, group = "token_source")]
    pub token_stdin: bool,
    /// The token itself; other users of this computer may see it in the list of processes.
    #[arg(long, value_name = "TOKEN", group = "token_source")]
    pub token: Option<String>,
}

/// `enrol`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  holdfast enrol https://backup.example.org --token hfe_…
  holdfast enrol https://backup.example.org --fingerprint sha256:… --token-stdin --name mailserver
  holdfast enrol https://backup.example.org --token hfe_… --replace mailserver

The token is made for you by the server (your computers, or POST /users/{user}/enrolments), is good once and for ten
minutes. With --replace this machine takes the place of another: its name, plans and history go on here, and the other
machine's credential dies. Afterwards: holdfast run")]
pub struct EnrolArguments {
    /// `https://HOST[:PORT]`.
    pub url: String,
    /// Trust exactly the certificate with this fingerprint (the server prints it at its first start).
    #[arg(long, value_name = "sha256:HEX", conflicts_with = "ca")]
    pub fingerprint: Option<String>,
    /// Trust certificates issued by an authority in this PEM file.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The enrolment token; it is worth nothing any more when the command has ended.
    #[arg(long, value_name = "TOKEN", group = "enrolment_source")]
    pub token: Option<String>,
    /// Read the token from standard input.
    #[arg(long, group = "enrolment_source")]
    pub token_stdin: bool,
    /// Name of this computer [default: the host name].
    #[arg(long, value_name = "NAME", conflicts_with = "replace")]
    pub name: Option<String>,
    /// Take the place of this computer: its name or id.
    #[arg(long, value_name = "COMPUTER")]
    pub replace: Option<String>,
}

/// `run`.
#[derive(Args, Debug)]
#[command(after_help = "As a service of systemd:
  holdfast run --print-unit | sudo tee /etc/systemd/system/holdfast.service
  sudo systemctl daemon-reload && sudo systemctl enable --now holdfast

Ends with exit code 4 when this computer was retired, or another machine took its place.")]
pub struct RunArguments {
    /// Print a unit file for systemd and end.
    #[arg(long)]
    pub print_unit: bool,
}

/// `backup`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("server_database"))]
#[command(group = clap::ArgGroup::new("any_database"))]
#[command(after_help = "Examples:
  holdfast backup /home --exclude '/home/*/.cache' --exclude-caches
  holdfast backup / --one-file-system --name root
  pg_dump shop | holdfast backup --stdin shop.sql
  holdfast backup --stdin shop.sql --stdin-from-command -- pg_dump shop
  holdfast backup --postgresql shop
  holdfast backup --mariadb shop --database-user backup --database-password-file /etc/holdfast/shop.password
  holdfast backup --sqlite /srv/app/app.db
  holdfast backup /srv/app --before 'systemctl stop app' --after 'systemctl start app'

Unchanged files are not read again. After an interruption the next run sends only what is missing. Beside a dump stands
a file NAME.restore.txt, which says how it becomes a database again.")]
pub struct BackupArguments {
    /// Directories and files; with --stdin-from-command, the command and its arguments.
    #[arg(value_name = "PATH")]
    pub paths: Vec<OsString>,
    /// Back standard input up as a file of this name.
    #[arg(long, value_name = "NAME")]
    pub stdin: Option<String>,
    /// Run the command after `--` and back its output up as the file that --stdin names; nothing is committed if it
    /// fails.
    #[arg(long, requires = "stdin")]
    pub stdin_from_command: bool,
    /// Back a PostgreSQL database up: a dump by pg_dump, with the cluster's roles. As root, and with no user named, the
    /// dump of a server behind a socket runs as the account postgres.
    #[arg(long, value_name = "DATABASE", groups = ["server_database", "any_database"], conflicts_with_all = NO_DATABASE)]
    pub postgresql: Option<String>,
    /// Back a MariaDB or MySQL database up: a dump by mariadb-dump or mysqldump, with the server's accounts.
    #[arg(long, value_name = "DATABASE", groups = ["server_database", "any_database"], conflicts_with_all = NO_DATABASE)]
    pub mariadb: Option<String>,
    /// Back an SQLite database up as one consistent state, copied by sqlite3 into the cache folder first.
    #[arg(long, value_name = "FILE", group = "any_database", conflicts_with_all = NO_DATABASE)]
    pub sqlite: Option<PathBuf>,
    /// Host of the database, or path: of the socket's directory for PostgreSQL, of the socket for MariaDB.
    #[arg(long, value_name = "HOST", requires = "server_database")]
    pub database_host: Option<String>,
    /// Port of the database.
    #[arg(long, value_name = "PORT", requires = "server_database")]
    pub database_port: Option<u16>,
    /// User of the database.
    #[arg(long, value_name = "USER", requires = "server_database")]
    pub database_user: Option<String>,
    /// File whose first line is that user's password; only its owner may be able to read it.
    #[arg(long, value_name = "FILE", requires = "server_database", conflicts_with = "database_account")]
    pub database_password_file: Option<PathBuf>,
    /// System account under which the dump runs.
    #[arg(long, value_name = "ACCOUNT", requires = "server_database")]
    pub database_account: Option<String>,
    /// Leave out what matches: a name, or a path from the root; `*`, `**`, `?`, `[a-z]`, trailing `/` for directories.
    #[arg(long, short, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Read patterns from a file, one per line, `#` for comments.
    #[arg(long, value_name = "FILE")]
    pub exclude_file: Vec<PathBuf>,
    /// Leave out the contents of directories marked as caches (CACHEDIR.TAG).
    #[arg(long)]
    pub exclude_caches: bool,
    /// Do not enter directories on another file system.
    #[arg(long, short = 'x')]
    pub one_file_system: bool,
    /// Tag of the snapshot; may be repeated.
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// Series of the snapshot instead of its paths.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Name of this computer in the snapshot.
    #[arg(long, value_name = "NAME")]
    pub computer: Option<String>,
    /// How large files are cut: `fine` for database dumps, `image` for disk images [default: default, for streams fine].
    #[arg(long, value_enum)]
    pub profile: Option<ProfileArgument>,
    /// Only say what would be read.
    #[arg(long, conflicts_with_all = ["stdin", "any_database"])]
    pub dry_run: bool,
    /// Largest upload rate, bytes per second; K, M and G are understood.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub limit_upload: Option<u64>,
    /// Run this by `sh -c` before the backup; may be repeated.
    #[arg(long, value_name = "COMMAND")]
    pub before: Vec<String>,
    /// Run this by `sh -c` after the backup, also after one that failed; HOLDFAST_RESULT is `complete`, `warnings` or
    /// `failed`, HOLDFAST_SNAPSHOT the snapshot's id. May be repeated.
    #[arg(long, value_name = "COMMAND")]
    pub after: Vec<String>,
    /// End such a command, with everything it started, after this many seconds: a failure.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    pub command_timeout: u32,
    /// What the failure of such a command means for the backup.
    #[arg(long, value_enum, value_name = "MEANING", default_value = "fail")]
    pub command_failure: FailureArgument,
}

/// `--command-failure`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FailureArgument {
    /// The command fails: before the backup, it does not begin.
    Fail,
    /// A warning.
    Warn,
}

/// `--profile`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ProfileArgument {
    /// Anything.
    Default,
    /// Database dumps.
    Fine,
    /// Disk images.
    Image,
}

/// Filters of snapshots.
#[derive(Args, Debug, Default)]
pub struct FilterArguments {
    /// Only snapshots of this computer.
    #[arg(long, value_name = "NAME")]
    pub computer: Option<String>,
    /// Only snapshots of this series.
    #[arg(long, value_name = "NAME")]
    pub series: Option<String>,
    /// Only snapshots with this tag.
    #[arg(long, value_name = "TAG")]
    pub tag: Option<String>,
    /// Only snapshots made at or before this date.
    #[arg(long, value_name = "DATE")]
    pub at: Option<String>,
}

/// `forget`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("rule").multiple(true))]
#[command(after_help = "Examples:
  holdfast forget 4f2a9c
  holdfast forget --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --dry-run
  holdfast forget --keep-within 30d --keep-tag audit --series /home
  holdfast forget 4f2a9c --purge

What is deleted comes back with `holdfast undelete` for as many days as the vault says (14 unless changed); until then it
counts as stored. --purge removes for good and frees the space. The newest complete snapshot of a series is never
forgotten by a rule. The token needs the right `delete`, with --purge the right `purge`.")]
pub struct ForgetArguments {
    /// Snapshots: ids, beginnings of ids, or `latest`.
    #[arg(value_name = "SNAPSHOT", conflicts_with = "rule")]
    pub snapshots: Vec<String>,
    /// Keep the newest N snapshots of each series.
    #[arg(long, value_name = "N", group = "rule")]
    pub keep_last: Option<u32>,
    /// Keep the newest snapshot of each of the last N hours that have one.
    #[arg(long, value_name = "N", group = "rule")]
    pub keep_hourly: Option<u32>,
    /// The same by days.
    #[arg(long, value_name = "N", group = "rule")]
    pub keep_daily: Option<u32>,
    /// The same by weeks, which begin on Monday.
    #[arg(long, value_name = "N", group = "rule")]
    pub keep_weekly: Option<u32>,
    /// The same by months.
    #[arg(long, value_name = "N", group = "rule")]
    pub keep_monthly: Option<u32>,
    /// The same by years.
    #[arg(long, value_name = "N", group = "rule")]
    pub keep_yearly: Option<u32>,
    /// Keep everything made within this time: 36h, 30d, 8w, 2y (a year is 365 days).
    #[arg(long, value_name = "TIME", group = "rule", value_parser = parse_within)]
    pub keep_within: Option<u64>,
    /// Keep everything with this tag; may be repeated.
    #[arg(long, value_name = "TAG", group = "rule")]
    pub keep_tag: Vec<String>,
    /// Time zone in which hours, days, weeks, months and years are told, such as Europe/Warsaw [default: this
    /// computer's].
    #[arg(long, value_name = "NAME", requires = "rule")]
    pub time_zone: Option<String>,
    /// With a rule: snapshots of this computer [default: the computer this runs on].
    #[arg(long, value_name = "NAME", requires = "rule")]
    pub computer: Option<String>,
    /// With a rule: snapshots of every computer in the vault.
    #[arg(long, requires = "rule", conflicts_with = "computer")]
    pub all_computers: bool,
    /// With a rule: only snapshots of this series.
    #[arg(long, value_name = "NAME", requires = "rule")]
    pub series: Option<String>,
    /// With a rule: only snapshots with this tag.
    #[arg(long, value_name = "TAG", requires = "rule")]
    pub tag: Option<String>,
    /// Only say what would be forgotten.
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// Remove for good: nothing brings it back.
    #[arg(long)]
    pub purge: bool,
}

/// `undelete`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  holdfast snapshots
  holdfast undelete 4f2a9c

The token needs the right `delete`.")]
pub struct UndeleteArguments {
    /// Snapshots: ids or beginnings of ids.
    #[arg(value_name = "SNAPSHOT", required = true)]
    pub snapshots: Vec<String>,
}

/// `tag`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("change").multiple(true).required(true))]
#[command(after_help = "Examples:
  holdfast tag latest --add before-upgrade
  holdfast tag 4f2a9c 77e0b1 --remove audit --add checked
  holdfast tag 4f2a9c --clear

Adding needs the right `backup` or `delete`, taking away the right `delete`: a tag may be what keeps a snapshot.")]
pub struct TagArguments {
    /// Snapshots: ids, beginnings of ids, or `latest`.
    #[arg(value_name = "SNAPSHOT", required = true)]
    pub snapshots: Vec<String>,
    /// Tag to add; may be repeated.
    #[arg(long, value_name = "TAG", group = "change")]
    pub add: Vec<String>,
    /// Tag to take away; may be repeated.
    #[arg(long, value_name = "TAG", group = "change")]
    pub remove: Vec<String>,
    /// Take all tags away, before others are added.
    #[arg(long, group = "change")]
    pub clear: bool,
}

/// `hold`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("end").required(true))]
#[command(after_help = "Examples:
  holdfast hold latest --until 2027-12-31
  holdfast hold 4f2a9c --lift

Setting and extending needs the right `backup`, `delete` or `hold`; shortening and lifting needs the right `hold`.")]
pub struct HoldArguments {
    /// Snapshots: ids, beginnings of ids, or `latest`.
    #[arg(value_name = "SNAPSHOT", required = true)]
    pub snapshots: Vec<String>,
    /// Nobody removes them before this date.
    #[arg(long, value_name = "DATE", group = "end")]
    pub until: Option<String>,
    /// End the hold now.
    #[arg(long, group = "end")]
    pub lift: bool,
}

/// `ls`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  holdfast ls
  holdfast ls latest:/etc
  holdfast ls 4f2a --recursive")]
pub struct LsArguments {
    /// Snapshot (id, beginning of an id, or `latest`), and a path in it.
    #[arg(value_name = "SNAPSHOT[:PATH]", default_value = "latest")]
    pub place: OsString,
    /// Everything below as well.
    #[arg(long, short)]
    pub recursive: bool,
    /// Which snapshots are meant.
    #[command(flatten)]
    pub filter: FilterArguments,
}

/// `find`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  holdfast find report.odt
  holdfast find '/home/*/**/*.key'")]
pub struct FindArguments {
    /// A name, or with a slash a whole path; `*`, `**`, `?` and `[a-z]` are understood.
    pub pattern: String,
    /// Which snapshots are meant.
    #[command(flatten)]
    pub filter: FilterArguments,
}

/// `diff`.
#[derive(Args, Debug)]
pub struct DiffArguments {
    /// First snapshot.
    pub first: String,
    /// Second snapshot.
    pub second: String,
}

/// `restore`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  holdfast restore latest --to /tmp/restored
  holdfast restore latest --path /etc/nginx --to /
  holdfast restore latest --at 2026-11-20 --path /home/ann --to /home/old --dry-run

Paths are made below --to as they were: /etc/hosts becomes TO/etc/hosts. Nothing is ever deleted.")]
pub struct RestoreArguments {
    /// Snapshot: id, beginning of an id, or `latest`.
    pub snapshot: String,
    /// Only this path; may be repeated.
    #[arg(long, value_name = "PATH")]
    pub path: Vec<OsString>,
    /// Below which directory; `/` brings everything back to where it was.
    #[arg(long, alias = "target", value_name = "DIR")]
    pub to: PathBuf,
    /// Only say what would be done.
    #[arg(long)]
    pub dry_run: bool,
    /// What to do where something is already: stop (list and write nothing), skip, newer, overwrite, keep-both.
    #[arg(long, value_name = "POLICY", default_value = "stop")]
    pub on_conflict: String,
    /// Give what belonged to one owner to another: `OLD=NEW` by number or name; may be repeated.
    #[arg(long, value_name = "OLD=NEW")]
    pub owner_map: Vec<String>,
    /// Find owners by their names on this computer instead of by number.
    #[arg(long)]
    pub owners_by_name: bool,
    /// Which snapshots are meant.
    #[command(flatten)]
    pub filter: FilterArguments,
}

/// `cat`.
#[derive(Args, Debug)]
pub struct CatArguments {
    /// Snapshot: id, beginning of an id, or `latest`.
    pub snapshot: String,
    /// Path in it.
    pub path: OsString,
    /// Which snapshots are meant.
    #[command(flatten)]
    pub filter: FilterArguments,
}

/// `check`.
#[derive(Args, Debug)]
pub struct CheckArguments {
    /// Only this snapshot.
    pub snapshot: Option<String>,
    /// Fetch and verify every byte.
    #[arg(long)]
    pub read_data: bool,
    /// Which snapshots are meant.
    #[command(flatten)]
    pub filter: FilterArguments,
}

/// Seconds of a time such as `36h`, `30d`, `8w` or `2y`.
fn parse_within(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a time such as 36h, 30d, 8w or 2y");
    let (number, seconds) = match text.char_indices().last() {
        Some((last, 'h')) => (&text[..last], 3600),
        Some((last, 'd')) => (&text[..last], 24 * 3600),
        Some((last, 'w')) => (&text[..last], 7 * 24 * 3600),
        Some((last, 'y')) => (&text[..last], 365 * 24 * 3600),
        _ => return Err(bad()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds)).filter(|time| *time > 0).ok_or_else(bad)
}

fn parse_rate(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a number of bytes per second such as 500K or 10M");
    let text = text.trim();
    let (digits, factor) = match text.char_indices().last() {
        Some((last, 'k' | 'K')) => (&text[..last], 1u64 << 10),
        Some((last, 'm' | 'M')) => (&text[..last], 1 << 20),
        Some((last, 'g' | 'G')) => (&text[..last], 1 << 30),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(factor).filter(|rate| *rate > 0).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn commands_after_two_dashes_keep_their_options() {
        let arguments = ["holdfast", "backup", "--stdin", "x", "--stdin-from-command", "--", "sh", "-c", "exit 1"];
        let parsed = Arguments::parse_from(arguments);
        let Command::Backup(backup) = parsed.command else { panic!() };
        assert_eq!(backup.paths, ["sh", "-c", "exit 1"]);
    }

    #[test]
    fn a_database_is_the_only_source() {
        let parse = |words: &str| Arguments::try_parse_from(words.split(' '));
        assert!(parse("holdfast backup --postgresql shop --database-host db1 --database-port 5433").is_ok());
        assert!(parse("holdfast backup --sqlite app.db --name app").is_ok());
        for wrong in [
            "holdfast backup --postgresql shop /etc",
            "holdfast backup --postgresql shop --mariadb shop",
            "holdfast backup --postgresql shop --sqlite app.db",
            "holdfast backup --sqlite app.db --database-host db1",
            "holdfast backup /etc --database-host db1",
            "holdfast backup --mariadb shop --exclude x",
            "holdfast backup --mariadb shop --dry-run",
            "holdfast backup --mariadb shop --database-password-file p --database-account a",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_and_rules_exclude_each_other() {
        let parse = |words: &str| Arguments::try_parse_from(words.split(' '));
        assert!(parse("holdfast forget 4f2a 77e0 --purge").is_ok());
        assert!(parse("holdfast forget --keep-daily 7 --keep-tag a --keep-tag b --series /home -n").is_ok());
        assert!(parse("holdfast forget 4f2a --keep-daily 7").is_err());
        assert!(parse("holdfast forget 4f2a --computer pc").is_err());
        assert!(parse("holdfast forget --keep-daily 7 --computer pc --all-computers").is_err());
        assert!(parse("holdfast hold 4f2a").is_err());
        assert!(parse("holdfast hold 4f2a --until 2027-01-01 --lift").is_err());
        assert!(parse("holdfast tag 4f2a --add a --remove b").is_ok());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_within("36h"), Ok(36 * 3600));
        assert_eq!(parse_within("1w"), Ok(7 * 24 * 3600));
        assert!(parse_within("30").is_err());
        assert!(parse_within("0d").is_err());
        assert!(parse_within("99999999999999999y").is_err());
    }

    #[test]
    fn rates_have_units() {
        assert_eq!(parse_rate("10M"), Ok(10 << 20));
        assert_eq!(parse_rate("7"), Ok(7));
        assert!(parse_rate("0").is_err());
        assert!(parse_rate("fast").is_err());
    }
}
