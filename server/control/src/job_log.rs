//! Logs of jobs: lines that agents send, kept here so that they survive the agent.

use crate::job::job_in;
use crate::{Computer, Control, ControlError, JobId, Scope};
use sqlx::Row;
use sqlx::any::AnyRow;

/// Lines of one job that are kept; further ones are counted.
pub const JOB_LOG_LINES_MAX: i64 = 10_000;
/// Longest line, bytes.
pub const JOB_LOG_LINE_BYTES_MAX: usize = 2000;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogLevel {
    /// It tells what happens.
    Info,
    /// Something is left out.
    Warning,
    /// The job fails because of it.
    Error,
}

impl LogLevel {
    /// As stored and as on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            LogLevel::Info => "info",
            LogLevel::Warning => "warning",
            LogLevel::Error => "error",
        }
    }

    fn stored(text: &str) -> Result<Self, ControlError> {
        match text {
            "info" => Ok(LogLevel::Info),
            "warning" => Ok(LogLevel::Warning),
            "error" => Ok(LogLevel::Error),
            _ => Err(ControlError::Corrupt { what: "level of a log line" }),
        }
    }
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Its number within the job, from 0.
    pub line: i64,
    /// The agent's clock, nanoseconds since 1970.
    pub at_ns: i64,
    /// How much it matters.
    pub level: LogLevel,
    /// The text, at most [`JOB_LOG_LINE_BYTES_MAX`].
    pub text: String,
}

pub(crate) fn line(row: &AnyRow) -> Result<LogLine, ControlError> {
    Ok(LogLine {
        line: row.try_get("line")?,
        at_ns: row.try_get("at_ns")?,
        level: LogLevel::stored(row.try_get("level")?)?,
        text: row.try_get("text")?,
    })
}

impl Control {
    /// Appends lines to the log of a computer's own job. Lines that are there already stay as they are, so that sending
    /// again changes nothing; of more than [`JOB_LOG_LINES_MAX`] only the number is kept. [`ControlError::NotFound`] for a
    /// job of another computer.
    pub async fn append_job_log(
        &self,
        computer: &Computer,
        job: &JobId,
        lines: &[LogLine],
    ) -> Result<(), ControlError> {
        if lines
            .iter()
            .any(|line| line.line < 0 || line.text.len() > JOB_LOG_LINE_BYTES_MAX || line.text.contains('\0'))
        {
            return Err(ControlError::Invalid { what: "log line", rule: "is too long, or has a number below 0" });
        }
        let mut transaction = self.write().await?;
        let own: Option<i64> = sqlx::query_scalar("SELECT log_kept FROM jobs WHERE id = $1 AND computer_id = $2")
            .bind(job.to_string())
            .bind(computer.id.to_string())
            .fetch_optional(&mut *transaction)
            .await?;
        let mut kept = own.ok_or_else(|| ControlError::not_found("job", &job.to_string()))?;
        let mut last = -1;
        for line in lines {
            last = line.line.max(last);
            if line.line >= JOB_LOG_LINES_MAX {
                continue;
            }
            let added = sqlx::query(
                "INSERT INTO job_log (job_id, line, at_ns, level, text) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (job_id, line) DO NOTHING",
            )
            .bind(job.to_string())
            .bind(line.line)
            .bind(line.at_ns)
            .bind(line.level.as_str())
            .bind(&line.text)
            .execute(&mut *transaction)
            .await?;
            kept += i64::try_from(added.rows_affected()).unwrap_or_default();
        }
        sqlx::query(
            "UPDATE jobs SET log_kept = $1, log_lines = CASE WHEN log_lines > $2 THEN log_lines ELSE $2 END WHERE id = $3",
        )
        .bind(kept)
        .bind(last + 1)
        .bind(job.to_string())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Lines of a job's log behind `after`, at most `limit`.
    pub async fn job_log(
        &self,
        scope: &Scope,
        job: &JobId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Vec<LogLine>, ControlError> {
        let mut connection = self.readers.acquire().await?;
        job_in(&mut connection, scope, job).await?;
        let rows = sqlx::query("SELECT * FROM job_log WHERE job_id = $1 AND line > $2 ORDER BY line LIMIT $3")
            .bind(job.to_string())
            .bind(after.unwrap_or(-1))
            .bind(i64::from(limit))
            .fetch_all(&mut *connection)
            .await?;
        rows.iter().map(line).collect()
    }
}
