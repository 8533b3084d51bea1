//! `login`: proves the server's identity and the token, then stores both.

use super::arguments::{EnrolArguments, LoginArguments};
use super::{complain, secret_line};
use crate::client::{Client, Patience};
use crate::config::{Folders, Login, private_folder};
use crate::connection::computer_name;
use crate::error::{AgentError, EXIT_COMPLETE};
use crate::report::Report;
use crate::service::hello;
use crate::stop::Stop;
use crate::tls::Trust;
use crate::transport::HttpTransport;
use api::agents::Hello;
use api::computers::Enrol;
use serde::Serialize;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Holds the token when no option names it.
const TOKEN_VARIABLE: &str = "HOLDFAST_TOKEN";
/// A person is waiting: no long patience.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct LoggedIn<'a> {
    event: &'static str,
    url: &'a str,
    user: Option<&'a str>,
    vault: &'a str,
}

pub(super) fn login(arguments: &LoginArguments, folders: &Folders, report: &Report) -> Result<u8, AgentError> {
    let trust = trust(arguments.fingerprint.as_deref(), arguments.ca.as_deref())?;
    let token = token(arguments)?;
    let url = arguments.url.trim_end_matches('/').to_owned();
    let transport = HttpTransport::new(&url, &trust, Some(token.clone()), None)
        .map_err(|error| AgentError::Usage(error.to_string()))?;
    let patience = Patience { total: PATIENCE, ..Patience::default() };
    let client = Client::new(Arc::new(transport), patience, Stop::default());
    check_protocol(&client)?;
    let me = client.me()?;
    let Some(vault) = me.vault else {
        return Err(AgentError::Usage(
            "this token administers the server and holds no vault; log in with a token for backups".into(),
        ));
    };
    // A key that cannot be had now would fail every later command.
    client.keys(&vault)?;
    let path = Login::new(url.clone(), &trust, vault.clone(), me.vault_name, &token).save(folders)?;
    let user = me.user.as_deref();
    let event = LoggedIn { event: "logged_in", url: &url, user, vault: &vault };
    let whom = user.map(|user| format!(" as {user}")).unwrap_or_default();
    report.result(&event, &format!("logged in to {url}{whom}; stored in {}", path.display()));
    Ok(EXIT_COMPLETE)
}

/// How the server is to be recognised.
fn trust(fingerprint: Option<&str>, ca: Option<&Path>) -> Result<Trust, AgentError> {
    Ok(match (fingerprint, ca) {
        (Some(text), _) => Trust::Pinned(text.parse().map_err(|error| AgentError::Usage(format!("{error}")))?),
        (None, Some(path)) => {
            Trust::Authority(std::path::absolute(path).map_err(|error| AgentError::file(path, error))?)
        }
        (None, None) => Trust::Public,
    })
}

fn check_protocol(client: &Client) -> Result<(), AgentError> {
    let info = client.info()?;
    match info.protocol == api::PROTOCOL_VERSION {
        true => Ok(()),
        false => Err(AgentError::Usage(format!(
            "the server speaks protocol {}, this agent {}: use the agent of version {}",
            info.protocol,
            api::PROTOCOL_VERSION,
            info.version
        ))),
    }
}

#[derive(Serialize)]
struct BecameComputer<'a> {
    event: &'static str,
    url: &'a str,
    user: &'a str,
    computer: &'a str,
    name: &'a str,
    vault: &'a str,
}

/// `enrol`: proves the server's identity, uses the token up, and stores the computer's own credential.
pub(super) fn enrol(arguments: &EnrolArguments, folders: &Folders, report: &Report) -> Result<u8, AgentError> {
    let trust = trust(arguments.fingerprint.as_deref(), arguments.ca.as_deref())?;
    let token = match (&arguments.token, arguments.token_stdin) {
        (Some(token), _) => Zeroizing::new(token.clone()),
        (None, true) => secret_line(std::io::stdin(), OsStr::new("standard input"))?,
        (None, false) => {
            let variable = std::env::var(TOKEN_VARIABLE).map(Zeroizing::new);
            variable.map_err(|_| AgentError::Usage("give the token with --token or --token-stdin".into()))?
        }
    };
    // What the credential would be written into must be there before the token is used up.
    private_folder(&folders.config)?;
    let url = arguments.url.trim_end_matches('/').to_owned();
    let transport =
        HttpTransport::new(&url, &trust, None, None).map_err(|error| AgentError::Usage(error.to_string()))?;
    let patience = Patience { total: PATIENCE, ..Patience::default() };
    let client = Client::new(Arc::new(transport), patience, Stop::default());
    check_protocol(&client)?;
    let Hello { os, agent_version } = hello();
    let made = client.enrol(&Enrol {
        token: token.as_str().to_owned(),
        name: arguments.name.clone().unwrap_or_else(computer_name),
        replaces: arguments.replace.clone(),
        os,
        agent_version,
    })?;
    let credential = Zeroizing::new(made.credential);
    let name = made.computer.name;
    let login = Login::new(url.clone(), &trust, made.vault.clone(), None, &credential).of_computer(name.clone());
    let path = login.save(folders)?;
    let event = BecameComputer {
        event: "enrolled",
        url: &url,
        user: &made.user,
        computer: &made.computer.id,
        name: &name,
        vault: &made.vault,
    };
    let text = format!("enrolled as {name} of {}; stored in {}. Next: holdfast run", made.user, path.display());
    report.result(&event, &text);
    Ok(EXIT_COMPLETE)
}

fn token(arguments: &LoginArguments) -> Result<Zeroizing<String>, AgentError> {
    let token = if let Some(path) = &arguments.token_file {
        let file = std::fs::File::open(path).map_err(|error| AgentError::file(path, error))?;
        secret_line(file, path.as_os_str())?
    } else if arguments.token_stdin {
        secret_line(std::io::stdin(), OsStr::new("standard input"))?
    } else if let Some(token) = &arguments.token {
        complain("warning: other users of this computer can see --token in the list of processes");
        Zeroizing::new(token.clone())
    } else if let Ok(token) = std::env::var(TOKEN_VARIABLE) {
        Zeroizing::new(token)
    } else {
        return Err(AgentError::Usage(format!("give the token with --token-file, --token-stdin or {TOKEN_VARIABLE}")));
    };
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(AgentError::Usage("the token is empty or holds characters that no token has".into()));
    }
    Ok(token)
}
