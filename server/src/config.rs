//! Settings: arguments, then environment, then a file, then defaults. The only reader of configuration.

use crate::app::agents::DEFAULT_HEARTBEAT;
use crate::jobs::JobSettings;
use clap::{Args, ValueEnum};
use serde::Deserialize;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use zeroize::Zeroizing;

/// Environment variable that holds the master key itself.
pub const MASTER_KEY_VARIABLE: &str = "HOLDFAST_MASTER_KEY";
/// Names the environment variable that may hold the URL of the accounts database. There is no argument for it: it may
/// hold a password, and arguments are seen by everybody on the machine.
pub const ACCOUNTS_URL_VARIABLE: &str = "HOLDFAST_ACCOUNTS_URL";
/// Port of the API.
pub const DEFAULT_PORT: u16 = 8440;
const DEFAULT_METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9440);
const DEFAULT_DRAIN: Duration = Duration::from_secs(60);
const DEFAULT_RETENTION_SECONDS: u64 = 3600;
const DEFAULT_NOTICE_SECONDS: u64 = 15;
const DEFAULT_SCRUB_DAYS: u64 = 30;
const SCRUB_DAYS_MAX: u64 = 3650;
const HEARTBEAT_SECONDS_MAX: u64 = 600;
const DEFAULT_SCRUB_BYTES_PER_SECOND: u64 = 32 << 20;
const ROOT_DATA: &str = "/var/lib/holdfast";
const OWN_DATA: &str = "holdfast-data";

/// Why the settings cannot be used; each names the setting.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not understood.
    #[error("configuration file {path}: {source}")]
    NotUnderstood {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A value cannot be used.
    #[error("setting `{setting}`: {rule}")]
    Value {
        /// Its name in the configuration file.
        setting: &'static str,
        /// What it must be.
        rule: &'static str,
    },
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Arguments that every command takes.
#[derive(Args, Clone, Debug, Default)]
pub struct CommonArguments {
    /// Data folder [default: /var/lib/holdfast for root, ./holdfast-data for everyone else].
    #[arg(long, global = true, env = "HOLDFAST_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Folder of the index, which may lie on another volume than the data folder: name it to every command that opens
    /// the store [default: in the data folder].
    #[arg(long, global = true, env = "HOLDFAST_INDEX_DIR", value_name = "DIR")]
    pub index_dir: Option<PathBuf>,
    /// Configuration file (TOML); arguments and environment go before it.
    #[arg(long, global = true, env = "HOLDFAST_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// File with an API token: what is asked of the running server is asked with that token's rights [default: as the
    /// operator on this machine].
    #[arg(long, global = true, env = "HOLDFAST_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// File that holds the master key [default: master.key in the data folder].
    #[arg(long, global = true, env = "HOLDFAST_MASTER_KEY_FILE", value_name = "FILE")]
    pub master_key_file: Option<PathBuf>,
    /// Command whose output is the master key (run by /bin/sh).
    #[arg(long, global = true, env = "HOLDFAST_MASTER_KEY_COMMAND", value_name = "COMMAND")]
    pub master_key_command: Option<String>,
    /// How log lines look.
    #[arg(long, global = true, env = "HOLDFAST_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What is logged: a level or a list such as `info,server=debug`.
    #[arg(long, global = true, env = "HOLDFAST_LOG", value_name = "FILTER")]
    pub log: Option<String>,
}

/// Arguments of `serve`.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArguments {
    /// Address and port of the API, several with commas; port 0 takes any free one [default: [::]:8440].
    #[arg(long, env = "HOLDFAST_LISTEN", value_name = "ADDRESS", value_delimiter = ',')]
    pub listen: Vec<SocketAddr>,
    /// Address and port of metrics and health [default: 127.0.0.1:9440].
    #[arg(long, env = "HOLDFAST_METRICS_LISTEN", value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,
    /// Address and port of the SFTP server for exports, such as [::]:2222; without it exports cannot be downloaded.
    #[arg(long, env = "HOLDFAST_SFTP_LISTEN", value_name = "ADDRESS")]
    pub sftp_listen: Option<SocketAddr>,
    /// Host and port by which people reach it [default: the host of the public URL, and its port].
    #[arg(long, env = "HOLDFAST_SFTP_PUBLIC", value_name = "HOST:PORT")]
    pub sftp_public: Option<String>,
    /// URL under which people and agents reach this server [default: https://HOSTNAME:PORT].
    #[arg(long, env = "HOLDFAST_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,
    /// Certificate chain (PEM) [default: a self-signed certificate in the data folder].
    #[arg(long, env = "HOLDFAST_CERTIFICATE", value_name = "FILE")]
    pub certificate: Option<PathBuf>,
    /// Private key of the certificate (PEM).
    #[arg(long, env = "HOLDFAST_PRIVATE_KEY", value_name = "FILE")]
    pub private_key: Option<PathBuf>,
    /// Bytes kept free for deletes and the journal on the disk (and on that of the index, if it has its own) [default:
    /// 5 % of the volume, 64 MiB to 20 GiB].
    #[arg(long, env = "HOLDFAST_DISK_RESERVE_BYTES", value_name = "BYTES")]
    pub disk_reserve_bytes: Option<u64>,
    /// Bytes of memory for decoded chunks and the index [default: 128 MiB].
    #[arg(long, env = "HOLDFAST_CACHE_BYTES", value_name = "BYTES")]
    pub cache_bytes: Option<u64>,
    /// Seconds between two runs of retention [default: 3600].
    #[arg(long, env = "HOLDFAST_RETENTION_SECONDS", value_name = "SECONDS")]
    pub retention_seconds: Option<u64>,
    /// Days within which everything stored is verified once; 0 turns verification off [default: 30].
    #[arg(long, env = "HOLDFAST_SCRUB_DAYS", value_name = "DAYS")]
    pub scrub_days: Option<u64>,
    /// Bytes verified per second at most [default: 32 MiB].
    #[arg(long, env = "HOLDFAST_SCRUB_BYTES_PER_SECOND", value_name = "BYTES")]
    pub scrub_bytes_per_second: Option<u64>,
    /// Seconds that running uploads get to finish after a request to stop [default: 60].
    #[arg(long, env = "HOLDFAST_DRAIN_SECONDS", value_name = "SECONDS")]
    pub drain_seconds: Option<u64>,
    /// Seconds between two signs of life of a running job; silent for three times as long it is lost [default: 20].
    #[arg(long, env = "HOLDFAST_HEARTBEAT_SECONDS", value_name = "SECONDS")]
    pub heartbeat_seconds: Option<u64>,
    /// Seconds after which an upload or restore that is not heard of is over [default: 86400]. Until then nothing it
    /// began from is collected.
    #[arg(long, env = "HOLDFAST_SESSION_IDLE_SECONDS", value_name = "SECONDS")]
    pub session_idle_seconds: Option<u64>,
    /// The mail server.
    #[command(flatten)]
    pub mail: MailArguments,
}

/// Arguments about the mail server.
#[derive(Args, Clone, Debug, Default)]
pub struct MailArguments {
    /// Mail server as HOST:PORT; port 465 speaks TLS at once, every other one STARTTLS unless told otherwise [default:
    /// none, and mails wait].
    #[arg(long, env = "HOLDFAST_SMTP_SERVER", value_name = "HOST:PORT")]
    pub smtp_server: Option<String>,
    /// How the connection to the mail server is kept private.
    #[arg(long, env = "HOLDFAST_SMTP_SECURITY", value_name = "KIND")]
    pub smtp_security: Option<MailSecurity>,
    /// Who logs in at the mail server.
    #[arg(long, env = "HOLDFAST_SMTP_USER", value_name = "NAME")]
    pub smtp_user: Option<String>,
    /// File that holds the password for the mail server.
    #[arg(long, env = "HOLDFAST_SMTP_PASSWORD_FILE", value_name = "FILE")]
    pub smtp_password_file: Option<PathBuf>,
    /// Certificate (PEM) of the mail server or its authority, trusted beside those of the system.
    #[arg(long, env = "HOLDFAST_SMTP_CERTIFICATE", value_name = "FILE")]
    pub smtp_certificate: Option<PathBuf>,
    /// Networks behind the operator's own walls that webhooks may reach, also without TLS, such as 10.1.0.0/16; several
    /// with commas [default: none].
    #[arg(long, env = "HOLDFAST_WEBHOOK_NETWORKS", value_name = "NETWORK", value_delimiter = ',')]
    pub webhook_networks: Vec<ipnet::IpNet>,
    /// Seconds between two looks whether something is wrong that people should hear of [default: 15].
    #[arg(long, env = "HOLDFAST_NOTICE_SECONDS", value_name = "SECONDS")]
    pub notice_seconds: Option<u64>,
    /// Sender of mails, such as `Holdfast <backup@example.org>`.
    #[arg(long, env = "HOLDFAST_MAIL_FROM", value_name = "ADDRESS")]
    pub mail_from: Option<String>,
}

/// The file; names as the long arguments with underscores.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSettings {
    data: Option<PathBuf>,
    index_dir: Option<PathBuf>,
    master_key_file: Option<PathBuf>,
    master_key_command: Option<String>,
    accounts_url: Option<String>,
    log_format: Option<LogFormat>,
    log: Option<String>,
    #[serde(default)]
    listen: Vec<SocketAddr>,
    metrics_listen: Option<SocketAddr>,
    sftp_listen: Option<SocketAddr>,
    sftp_public: Option<String>,
    public_url: Option<String>,
    certificate: Option<PathBuf>,
    private_key: Option<PathBuf>,
    disk_reserve_bytes: Option<u64>,
    cache_bytes: Option<u64>,
    retention_seconds: Option<u64>,
    scrub_days: Option<u64>,
    scrub_bytes_per_second: Option<u64>,
    drain_seconds: Option<u64>,
    heartbeat_seconds: Option<u64>,
    session_idle_seconds: Option<u64>,
    smtp_server: Option<String>,
    smtp_security: Option<MailSecurity>,
    smtp_user: Option<String>,
    smtp_password_file: Option<PathBuf>,
    smtp_certificate: Option<PathBuf>,
    mail_from: Option<String>,
    #[serde(default)]
    webhook_networks: Vec<ipnet::IpNet>,
    notice_seconds: Option<u64>,
}

/// Where the master key comes from.
#[derive(Clone)]
pub enum MasterKeySource {
    /// A file in its text form; made at the first start when it is the one in the data folder.
    File(PathBuf),
    /// The environment.
    Environment(Zeroizing<String>),
    /// The output of a command.
    Command(String),
}

/// How the connection to the mail server is kept private.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MailSecurity {
    /// TLS from the first byte.
    Tls,
    /// TLS after asking for it; without it nothing is sent.
    Starttls,
    /// None: for a mail server on the same machine.
    None,
}

/// The operator's mail server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailSettings {
    /// Its name, as in its certificate.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is kept private.
    pub security: MailSecurity,
    /// Who logs in there; `None`: nobody.
    pub user: Option<String>,
    /// With which password.
    pub password_file: Option<PathBuf>,
    /// A certificate (PEM) to trust beside those of the system.
    pub certificate: Option<PathBuf>,
    /// Sender, such as `Holdfast <backup@example.org>`.
    pub from: String,
}

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// Made at the first start, kept in the data folder.
    SelfSigned,
    /// From files.
    Files {
        /// PEM, the server's own certificate first.
        certificate: PathBuf,
        /// PEM.
        private_key: PathBuf,
    },
}

/// Checked settings that every command uses.
#[derive(Clone)]
pub struct CommonSettings {
    /// Data folder.
    pub data: PathBuf,
    /// Folder of the index; `None` = in the data folder.
    pub index: Option<PathBuf>,
    /// Master key.
    pub master_key: MasterKeySource,
    /// URL of the PostgreSQL database of the accounts; `None` = SQLite in the data folder.
    pub accounts_url: Option<Zeroizing<String>>,
    /// File with the credential of commands; `None` = as the operator on this machine.
    pub token_file: Option<PathBuf>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What is logged.
    pub log: String,
}

/// Checked settings of `serve`.
#[derive(Clone)]
pub struct Settings {
    /// What every command uses.
    pub common: CommonSettings,
    /// Addresses of the API; empty = port 8440 of every address.
    pub listen: Vec<SocketAddr>,
    /// Address of metrics and health.
    pub metrics_listen: SocketAddr,
    /// Address of the SFTP server; `None` = there is none.
    pub sftp_listen: Option<SocketAddr>,
    /// Host and port by which people reach it; `None` = the host of the public URL.
    pub sftp_public: Option<String>,
    /// How people and agents reach this server; `None` = by host name and port.
    pub public_url: Option<String>,
    /// Certificate.
    pub certificate: CertificateSource,
    /// Bytes of disk kept free; `None` = by the size of the volume.
    pub disk_reserve_bytes: Option<u64>,
    /// Bytes of cache; `None` = the store's default.
    pub cache_bytes: Option<u64>,
    /// When and how fast background jobs work.
    pub jobs: JobSettings,
    /// What running uploads get at a stop.
    pub drain: Duration,
    /// After which silence uploads and restores are over; `None` = the store's default.
    pub session_idle: Option<Duration>,
    /// The mail server; `None`: mails wait.
    pub mail: Option<MailSettings>,
    /// Networks that webhooks may reach although they are not public.
    pub webhook_networks: Vec<ipnet::IpNet>,
}

impl Settings {
    /// The address that stands for "every address" when none is given.
    pub const EVERY_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), DEFAULT_PORT);
}

fn read_file(common: &CommonArguments) -> Result<FileSettings, ConfigError> {
    let Some(path) = &common.config else { return Ok(FileSettings::default()) };
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
    toml::from_str(&text).map_err(|source| ConfigError::NotUnderstood { path: path.clone(), source: Box::new(source) })
}

/// The environment goes before the file.
fn known_accounts_url(in_file: Option<String>) -> Option<Zeroizing<String>> {
    let environment = std::env::var(ACCOUNTS_URL_VARIABLE).ok().filter(|text| !text.is_empty());
    environment.or(in_file).map(Zeroizing::new)
}

fn default_data() -> PathBuf {
    if rustix::process::geteuid().is_root() { ROOT_DATA.into() } else { OWN_DATA.into() }
}

fn common_settings(
    arguments: CommonArguments,
    data: Option<PathBuf>,
    index_dir: Option<PathBuf>,
    master_key_file: Option<PathBuf>,
    master_key_command: Option<String>,
    log_format: Option<LogFormat>,
    log: Option<String>,
) -> CommonSettings {
    let data = arguments.data.or(data).unwrap_or_else(default_data);
    let environment = std::env::var(MASTER_KEY_VARIABLE).ok().filter(|text| !text.is_empty()).map(Zeroizing::new);
    let master_key = match (arguments.master_key_file, arguments.master_key_command, environment) {
        (Some(file), _, _) => MasterKeySource::File(file),
        (None, Some(command), _) => MasterKeySource::Command(command),
        (None, None, Some(text)) => MasterKeySource::Environment(text),
        (None, None, None) => match (master_key_file, master_key_command) {
            (Some(file), _) => MasterKeySource::File(file),
            (None, Some(command)) => MasterKeySource::Command(command),
            (None, None) => MasterKeySource::File(crate::data_folder::DataFolder::new(data.clone()).master_key()),
        },
    };
    CommonSettings {
        data,
        index: arguments.index_dir.or(index_dir),
        master_key,
        accounts_url: None,
        token_file: arguments.token_file,
        log_format: arguments.log_format.or(log_format).unwrap_or_default(),
        log: arguments.log.or(log).unwrap_or_else(|| "info".into()),
    }
}

impl CommonSettings {
    /// For a command other than `serve`.
    pub fn new(arguments: CommonArguments) -> Result<Self, ConfigError> {
        let file = read_file(&arguments)?;
        let FileSettings {
            data, index_dir, master_key_file, master_key_command, accounts_url, log_format, log, ..
        } = file;
        let common = common_settings(arguments, data, index_dir, master_key_file, master_key_command, log_format, log);
        Ok(CommonSettings { accounts_url: known_accounts_url(accounts_url), ..common })
    }
}

/// The mail server, checked; `None` when none is named.
fn mail_settings(arguments: MailArguments) -> Result<Option<MailSettings>, ConfigError> {
    let MailArguments {
        smtp_server, smtp_security, smtp_user, smtp_password_file, smtp_certificate, mail_from, ..
    } = arguments;
    let Some(server) = smtp_server else {
        return match mail_from {
            None => Ok(None),
            Some(_) => Err(ConfigError::Value { setting: "mail_from", rule: "goes with `smtp_server`" }),
        };
    };
    let wrong = ConfigError::Value { setting: "smtp_server", rule: "must be HOST:PORT" };
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) => (host.trim_start_matches('[').trim_end_matches(']'), port.parse::<u16>().ok()),
        None => ("", None),
    };
    let (Some(port), false) = (port, host.is_empty()) else { return Err(wrong) };
    let security = smtp_security.unwrap_or(if port == 465 { MailSecurity::Tls } else { MailSecurity::Starttls });
    if security == MailSecurity::None && smtp_user.is_some() && !is_this_machine(host) {
        return Err(ConfigError::Value {
            setting: "smtp_security",
            rule: "`none` with a password is for a mail server on the same machine only",
        });
    }
    let Some(from) = mail_from else {
        return Err(ConfigError::Value { setting: "mail_from", rule: "must be set with `smtp_server`" });
    };
    Ok(Some(MailSettings {
        host: host.to_owned(),
        port,
        security,
        user: smtp_user,
        password_file: smtp_password_file,
        certificate: smtp_certificate,
        from,
    }))
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Settings {
    /// For `serve`.
    pub fn new(common: CommonArguments, serve: ServeArguments) -> Result<Self, ConfigError> {
        let file = read_file(&common)?;
        let FileSettings {
            data,
            index_dir,
            master_key_file,
            master_key_command,
            accounts_url,
            log_format,
            log,
            listen,
            metrics_listen,
            sftp_listen,
            sftp_public,
            public_url,
            certificate,
            private_key,
            disk_reserve_bytes,
            cache_bytes,
            retention_seconds,
            scrub_days,
            scrub_bytes_per_second,
            drain_seconds,
            heartbeat_seconds,
            session_idle_seconds,
            smtp_server,
            smtp_security,
            smtp_user,
            smtp_password_file,
            smtp_certificate,
            mail_from,
            webhook_networks,
            notice_seconds,
        } = file;
        let notice_seconds = serve.mail.notice_seconds.or(notice_seconds).unwrap_or(DEFAULT_NOTICE_SECONDS);
        if notice_seconds == 0 {
            return Err(ConfigError::Value { setting: "notice_seconds", rule: "must be at least 1" });
        }
        let webhook_networks = match serve.mail.webhook_networks.is_empty() {
            true => webhook_networks,
            false => serve.mail.webhook_networks.clone(),
        };
        let mail = mail_settings(MailArguments {
            smtp_server: serve.mail.smtp_server.or(smtp_server),
            smtp_security: serve.mail.smtp_security.or(smtp_security),
            smtp_user: serve.mail.smtp_user.or(smtp_user),
            smtp_password_file: serve.mail.smtp_password_file.or(smtp_password_file),
            smtp_certificate: serve.mail.smtp_certificate.or(smtp_certificate),
            mail_from: serve.mail.mail_from.or(mail_from),
            ..MailArguments::default()
        })?;
        let common = common_settings(common, data, index_dir, master_key_file, master_key_command, log_format, log);
        let common = CommonSettings { accounts_url: known_accounts_url(accounts_url), ..common };
        let certificate = match (serve.certificate.or(certificate), serve.private_key.or(private_key)) {
            (None, None) => CertificateSource::SelfSigned,
            (Some(certificate), Some(private_key)) => CertificateSource::Files { certificate, private_key },
            (Some(_), None) => {
                return Err(ConfigError::Value { setting: "private_key", rule: "goes with `certificate`" });
            }
            (None, Some(_)) => {
                return Err(ConfigError::Value { setting: "certificate", rule: "goes with `private_key`" });
            }
        };
        let public_url = serve.public_url.or(public_url).map(|url| url.trim_end_matches('/').to_owned());
        if public_url.as_ref().is_some_and(|url| !url.starts_with("https://") || url.len() <= "https://".len()) {
            return Err(ConfigError::Value { setting: "public_url", rule: "must begin with https:// and name a host" });
        }
        let retention_seconds = serve.retention_seconds.or(retention_seconds).unwrap_or(DEFAULT_RETENTION_SECONDS);
        if retention_seconds == 0 {
            return Err(ConfigError::Value { setting: "retention_seconds", rule: "must be at least 1" });
        }
        let scrub_days = serve.scrub_days.or(scrub_days).unwrap_or(DEFAULT_SCRUB_DAYS);
        if scrub_days > SCRUB_DAYS_MAX {
            return Err(ConfigError::Value { setting: "scrub_days", rule: "must be between 0 and 3650" });
        }
        let scrub_bytes_per_second =
            serve.scrub_bytes_per_second.or(scrub_bytes_per_second).unwrap_or(DEFAULT_SCRUB_BYTES_PER_SECOND);
        if scrub_bytes_per_second == 0 {
            return Err(ConfigError::Value {
                setting: "scrub_bytes_per_second",
                rule: "must be at least 1 (scrub_days = 0 turns verification off)",
            });
        }
        let heartbeat_seconds = serve.heartbeat_seconds.or(heartbeat_seconds);
        if heartbeat_seconds.is_some_and(|seconds| !(1..=HEARTBEAT_SECONDS_MAX).contains(&seconds)) {
            return Err(ConfigError::Value { setting: "heartbeat_seconds", rule: "must be between 1 and 600" });
        }
        let jobs = JobSettings {
            retention_every: Duration::from_secs(retention_seconds),
            scrub_cycle: Duration::from_secs(scrub_days * 24 * 3600),
            scrub_bytes_per_second,
            heartbeat: heartbeat_seconds.map_or(DEFAULT_HEARTBEAT, Duration::from_secs),
            notices_every: Duration::from_secs(notice_seconds),
        };
        let drain_seconds = serve.drain_seconds.or(drain_seconds);
        let session_idle_seconds = serve.session_idle_seconds.or(session_idle_seconds);
        if session_idle_seconds == Some(0) {
            return Err(ConfigError::Value { setting: "session_idle_seconds", rule: "must be at least 1" });
        }
        Ok(Settings {
            common,
            listen: if serve.listen.is_empty() { listen } else { serve.listen },
            metrics_listen: serve.metrics_listen.or(metrics_listen).unwrap_or(DEFAULT_METRICS),
            sftp_listen: serve.sftp_listen.or(sftp_listen),
            sftp_public: serve.sftp_public.or(sftp_public),
            public_url,
            certificate,
            disk_reserve_bytes: serve.disk_reserve_bytes.or(disk_reserve_bytes),
            cache_bytes: serve.cache_bytes.or(cache_bytes),
            jobs,
            drain: drain_seconds.map_or(DEFAULT_DRAIN, Duration::from_secs),
            session_idle: session_idle_seconds.map(Duration::from_secs),
            mail,
            webhook_networks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str, serve: ServeArguments) -> Result<Settings, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("holdfastd.toml");
        std::fs::write(&path, text).unwrap();
        Settings::new(CommonArguments { config: Some(path), ..CommonArguments::default() }, serve)
    }

    #[test]
    fn arguments_go_before_the_file() {
        let serve = ServeArguments { drain_seconds: Some(5), ..ServeArguments::default() };
        let text = "data = \"/data\"\nlisten = [\"127.0.0.1:1\"]\ndrain_seconds = 9\nlog_format = \"json\"\n";
        let settings = with_file(text, serve).unwrap();
        assert_eq!(settings.drain, Duration::from_secs(5));
        assert_eq!(settings.listen, ["127.0.0.1:1".parse().unwrap()]);
        assert_eq!(settings.common.data, PathBuf::from("/data"));
        assert_eq!(settings.common.log_format, LogFormat::Json);
        assert!(matches!(settings.common.master_key, MasterKeySource::File(file) if file.ends_with("data/master.key")));
    }

    #[test]
    fn mistakes_name_the_setting() {
        let unknown = with_file("lisen = []", ServeArguments::default()).err().unwrap().to_string();
        assert!(unknown.contains("lisen"), "{unknown}");
        let half = with_file("certificate = \"a.pem\"", ServeArguments::default()).err().unwrap().to_string();
        assert!(half.contains("private_key"), "{half}");
        let url = with_file("public_url = \"http://a\"", ServeArguments::default()).err().unwrap().to_string();
        assert!(url.contains("public_url"), "{url}");
        let idle = with_file("session_idle_seconds = 0", ServeArguments::default()).err().unwrap().to_string();
        assert!(idle.contains("session_idle_seconds"), "{idle}");
        for (text, setting) in [
            ("smtp_server = \"mail.example.org\"", "smtp_server"),
            ("smtp_server = \"mail.example.org:25\"", "mail_from"),
            ("mail_from = \"a@example.org\"", "mail_from"),
            (
                "smtp_server = \"mail.example.org:25\"\nmail_from = \"a@example.org\"\nsmtp_user = \"a\"\n\
                 smtp_security = \"none\"",
                "smtp_security",
            ),
        ] {
            let error = with_file(text, ServeArguments::default()).err().unwrap().to_string();
            assert!(error.contains(&format!("`{setting}`")), "{error}");
        }
    }

    #[test]
    fn a_mail_server_speaks_tls_unless_told_otherwise() {
        let settings = |port: u16| {
            let text = format!("smtp_server = \"[::1]:{port}\"\nmail_from = \"Holdfast <a@example.org>\"\n");
            with_file(&text, ServeArguments::default()).unwrap().mail.unwrap()
        };
        assert_eq!((settings(465).security, settings(587).security), (MailSecurity::Tls, MailSecurity::Starttls));
        assert_eq!((settings(25).host.as_str(), settings(25).port), ("::1", 25));
        assert!(with_file("", ServeArguments::default()).unwrap().mail.is_none());
    }
}
