//! Log lines: to standard error, as text or JSON. ERROR = someone must act, WARN = someone should look.

use crate::config::LogFormat;
use tracing_subscriber::EnvFilter;

/// Sets the process's log up; a second call changes nothing. A filter that cannot be read is an error naming it.
pub fn start(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("setting `log`: {error}"))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = match format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(())
}
