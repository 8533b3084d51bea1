//! Finding jobs by the words of their logs. A log's words go into an index of our own, a moment after its lines came in:
//! jobs of a tenant are numbered in buckets of up to 1024, and for each word and bucket one row says which of them have
//! it. A search reads those rows, newest bucket first, and never a log that does not match.

use crate::job_list::ListedJob;
use crate::{BucketId, Control, ControlError, JobFilter, LogLine, Scope, TenantId};
use sqlx::{AnyConnection, Row};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Jobs of a bucket.
const BUCKET_JOBS_MAX: i64 = 1024;
/// A bucket older than this takes no more jobs, so that buckets of all tenants are in the order of time.
const BUCKET_AGE_MAX_NS: i64 = 7 * 24 * 3600 * 1_000_000_000;
/// Numbers written one by one; more are bits.
const LIST_MAX: usize = 40;
/// Shortest and longest word, characters; what is longer is cut.
const WORD_MIN: usize = 2;
const WORD_MAX: usize = 40;
/// Words of one log that are found; later ones are not.
const WORDS_MAX: usize = 4000;
/// Longest number that is a word: longer ones are counts and sizes, each another.
const DIGITS_MAX: usize = 5;
/// A word of so many hexadecimal digits is an id, which nobody searches for by words.
const ID_DIGITS_MIN: usize = 16;
/// Words of one question.
const QUESTION_WORDS_MAX: usize = 8;
/// Buckets and jobs looked at for one page, so that a page comes soon even where little of what is found may be seen.
const BUCKETS_MAX: usize = 400;
const CANDIDATES_MAX: usize = 2000;
/// Jobs whose rows are read at once.
const CANDIDATES_STEP: usize = 100;
/// Lines shown of a log.
const LINES_MAX: usize = 5;

/// Which jobs of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Members([u64; 16]);

impl Members {
    const NONE: Members = Members([0; 16]);

    fn insert(&mut self, number: i64) {
        let number = usize::try_from(number).unwrap_or(0).min(1023);
        self.0[number / 64] |= 1 << (number % 64);
    }

    fn and(mut self, other: &Members) -> Members {
        for (bits, others) in self.0.iter_mut().zip(other.0) {
            *bits &= others;
        }
        self
    }

    fn numbers(&self) -> Vec<i64> {
        let has = |number: &i64| {
            let number = *number as usize;
            self.0[number / 64] >> (number % 64) & 1 == 1
        };
        (0..BUCKET_JOBS_MAX).filter(has).collect()
    }

    fn stored(text: &str) -> Result<Members, ControlError> {
        let corrupt = || ControlError::Corrupt { what: "index of logs" };
        let mut members = Members::NONE;
        if let Some(list) = text.strip_prefix('l') {
            for number in list.split(',') {
                members.insert(number.parse().map_err(|_| corrupt())?);
            }
            return Ok(members);
        }
        let bytes = text.strip_prefix('b').and_then(|bits| data_encoding::HEXLOWER.decode(bits.as_bytes()).ok());
        for (at, byte) in bytes.ok_or_else(corrupt)?.into_iter().take(128).enumerate() {
            members.0[at / 8] |= u64::from(byte) << (at % 8 * 8);
        }
        Ok(members)
    }

    fn to_stored(self) -> String {
        let numbers = self.numbers();
        if numbers.len() <= LIST_MAX {
            return format!("l{}", numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","));
        }
        let mut bytes: Vec<u8> = self.0.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        format!("b{}", data_encoding::HEXLOWER.encode(&bytes))
    }
}

/// The words of a text, in lower case.
fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|character: char| !character.is_alphanumeric()).filter_map(|word| {
        let word: String = word.chars().flat_map(char::to_lowercase).take(WORD_MAX).collect();
        let count = word.chars().count();
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        let is_id = count >= ID_DIGITS_MIN && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        (count >= WORD_MIN && !is_id && !(is_number && count > DIGITS_MAX)).then_some(word)
    })
}

/// A job whose log has the words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundLog {
    /// The job.
    pub job: ListedJob,
    /// Its first lines with any of the words.
    pub lines: Vec<LogLine>,
}

/// Where a search goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogCursor {
    /// When the bucket was opened.
    pub opened_ns: i64,
    /// The bucket.
    pub bucket: BucketId,
    /// The number in it of the last job that was looked at.
    pub number: i64,
}

/// What was found, and where to go on. A page may be empty and still have a next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundLogs {
    /// Newest bucket first, in it the newest job first.
    pub found: Vec<FoundLog>,
    /// Absent: nothing is left.
    pub next: Option<LogCursor>,
}

struct Candidates {
    bucket: BucketId,
    opened_ns: i64,
    numbers: Vec<i64>,
}

impl Control {
    /// Puts the words of new lines of logs into the index, of at most `limit` jobs. Answers of how many; fewer than
    /// `limit`: nothing is left.
    pub async fn index_logs(&self, now_ns: i64, limit: u32) -> Result<u32, ControlError> {
        let rows = sqlx::query("SELECT id, tenant_id, log_kept FROM jobs WHERE log_kept > log_indexed LIMIT $1")
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        let mut logs = Vec::new();
        for row in &rows {
            let (id, tenant): (String, String) = (row.try_get("id")?, row.try_get("tenant_id")?);
            let lines = sqlx::query("SELECT text FROM job_log WHERE job_id = $1 ORDER BY line")
                .bind(&id)
                .fetch_all(&self.readers)
                .await?;
            let mut found = BTreeSet::new();
            for line in &lines {
                found.extend(words(line.try_get("text")?).take(WORDS_MAX));
                if found.len() >= WORDS_MAX {
                    break;
                }
            }
            logs.push((id, tenant, row.try_get::<i64, _>("log_kept")?, found));
        }
        if logs.is_empty() {
            return Ok(0);
        }
        let mut transaction = self.write().await?;
        // Of each bucket and word which jobs are new: common words are written once for all of them.
        let mut new: BTreeMap<(i64, String, String), BTreeMap<String, Members>> = BTreeMap::new();
        for (id, tenant, kept, found) in logs {
            let marked = sqlx::query("UPDATE jobs SET log_indexed = $1 WHERE id = $2")
                .bind(kept)
                .bind(&id)
                .execute(&mut *transaction)
                .await?;
            if marked.rows_affected() == 0 {
                continue;
            }
            let (opened_ns, bucket, number) = number_of(&mut transaction, &id, &tenant, now_ns).await?;
            let of_bucket = new.entry((opened_ns, bucket, tenant)).or_default();
            for word in found {
                of_bucket.entry(word).or_insert(Members::NONE).insert(number);
            }
        }
        for ((opened_ns, bucket, tenant), of_words) in new {
            add_words(&mut transaction, opened_ns, &bucket, &tenant, of_words).await?;
        }
        transaction.commit().await?;
        Ok(rows.len() as u32)
    }

    /// Jobs in the scope and filter whose logs have every word of `question`, at most `limit`.
    pub async fn search_logs(
        &self,
        scope: &Scope,
        question: &str,
        filter: &JobFilter,
        after: Option<&LogCursor>,
        limit: u32,
    ) -> Result<FoundLogs, ControlError> {
        let asked: BTreeSet<String> = words(question).collect();
        if asked.is_empty() || asked.len() > QUESTION_WORDS_MAX {
            return Err(ControlError::Invalid { what: "words", rule: "must be 1 to 8 words of two letters or more" });
        }
        let asked: Vec<String> = asked.into_iter().collect();
        let mut out = FoundLogs::default();
        if !self.reaches_filter(scope, filter).await? {
            return Ok(out);
        }
        let (mut position, mut looked_at) = (after.cloned(), 0);
        loop {
            let buckets = self.buckets_with(scope, &asked, filter.tenant.as_ref(), position.as_ref()).await?;
            let is_last = buckets.len() < BUCKETS_MAX;
            for bucket in buckets {
                for step in bucket.numbers.chunks(CANDIDATES_STEP) {
                    let jobs = self.jobs_of_bucket(scope, filter, &bucket.bucket, step).await?;
                    looked_at += step.len();
                    for (number, job) in jobs {
                        let lines = self.lines_with(&job.job.id.to_string(), &asked).await?;
                        out.found.push(FoundLog { job, lines });
                        if out.found.len() >= limit as usize {
                            let (opened_ns, bucket) = (bucket.opened_ns, bucket.bucket);
                            out.next = Some(LogCursor { opened_ns, bucket, number });
                            return Ok(out);
                        }
                    }
                    let number = step.last().copied().unwrap_or(0);
                    let reached = LogCursor { opened_ns: bucket.opened_ns, bucket: bucket.bucket, number };
                    if looked_at >= CANDIDATES_MAX {
                        out.next = Some(reached);
                        return Ok(out);
                    }
                }
                // Whatever is in this bucket has been looked at, also when no job of it has all the words.
                position = Some(LogCursor { opened_ns: bucket.opened_ns, bucket: bucket.bucket, number: 0 });
            }
            if is_last {
                return Ok(out);
            }
        }
    }

    /// Buckets that have jobs with all the words, newest first, each with those jobs behind the cursor, newest first.
    async fn buckets_with(
        &self,
        scope: &Scope,
        asked: &[String],
        tenant: Option<&TenantId>,
        after: Option<&LogCursor>,
    ) -> Result<Vec<Candidates>, ControlError> {
        let mut joins = String::new();
        let mut columns = String::new();
        for at in 1..asked.len() {
            columns.push_str(&format!(", w{at}.members AS members{at}"));
            joins.push_str(&format!(
                " JOIN log_words AS w{at} ON w{at}.word = ${} AND w{at}.opened_ns = w0.opened_ns \
                 AND w{at}.bucket_id = w0.bucket_id",
                at + 1
            ));
        }
        let mut conditions = vec![scope.condition("w0.tenant_id", None)];
        conditions.extend(tenant.map(|id| format!("w0.tenant_id = '{id}'")));
        // The cursor's own bucket again: there may be more in it.
        conditions.extend(after.map(|cursor| {
            let LogCursor { opened_ns, bucket, .. } = cursor;
            format!("w0.opened_ns <= {opened_ns} AND (w0.opened_ns < {opened_ns} OR w0.bucket_id <= '{bucket}')")
        }));
        let text = format!(
            "SELECT w0.bucket_id AS bucket_id, w0.opened_ns AS opened_ns, w0.members AS members0{columns} \
             FROM log_words AS w0{joins} WHERE w0.word = $1 AND {} \
             ORDER BY w0.opened_ns DESC, w0.bucket_id DESC LIMIT {BUCKETS_MAX}",
            conditions.join(" AND ")
        );
        let mut query = sqlx::query(sqlx::AssertSqlSafe(text));
        for word in asked {
            query = query.bind(word);
        }
        let mut buckets = Vec::new();
        for row in &query.fetch_all(&self.readers).await? {
            let mut members = Members::stored(row.try_get("members0")?)?;
            for at in 1..asked.len() {
                members = members.and(&Members::stored(row.try_get(format!("members{at}").as_str())?)?);
            }
            let bucket = BucketId::stored(row.try_get("bucket_id")?)?;
            let mut numbers = members.numbers();
            numbers.reverse();
            if let Some(cursor) = after.filter(|cursor| cursor.bucket == bucket) {
                numbers.retain(|number| *number < cursor.number);
            }
            buckets.push(Candidates { bucket, opened_ns: row.try_get("opened_ns")?, numbers });
        }
        Ok(buckets)
    }

    /// Of some numbers of a bucket the jobs that the scope and the filter let through, with their numbers, in that order.
    async fn jobs_of_bucket(
        &self,
        scope: &Scope,
        filter: &JobFilter,
        bucket: &BucketId,
        numbers: &[i64],
    ) -> Result<Vec<(i64, ListedJob)>, ControlError> {
        let listed: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        let mut conditions = vec![scope.condition("jobs.tenant_id", Some("jobs.user_id"))];
        conditions.extend(filter.state.map(|state| format!("jobs.state = '{}'", state.as_str())));
        conditions.extend(filter.kind.map(|kind| format!("jobs.kind = '{}'", kind.as_str())));
        conditions.extend(filter.tenant.map(|id| format!("jobs.tenant_id = '{id}'")));
        conditions.extend(filter.user.map(|id| format!("jobs.user_id = '{id}'")));
        conditions.extend(filter.computer.map(|id| format!("jobs.computer_id = '{id}'")));
        conditions.extend(filter.plan.map(|id| format!("jobs.plan_id = '{id}'")));
        conditions.extend(filter.from_ns.map(|at_ns| format!("jobs.started_ns >= {at_ns}")));
        conditions.extend(filter.to_ns.map(|at_ns| format!("jobs.started_ns < {at_ns}")));
        let text = format!(
            "SELECT log_bucket_jobs.number AS number, jobs.id AS id FROM log_bucket_jobs \
             JOIN jobs ON jobs.id = log_bucket_jobs.job_id \
             WHERE log_bucket_jobs.bucket_id = $1 AND log_bucket_jobs.number IN ({}) AND {}",
            listed.join(", "),
            conditions.join(" AND ")
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(text)).bind(bucket.to_string()).fetch_all(&self.readers).await?;
        let mut ids = Vec::new();
        for row in &rows {
            ids.push((row.try_get::<i64, _>("number")?, row.try_get::<String, _>("id")?));
        }
        ids.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        let numbers: HashMap<String, i64> = ids.iter().map(|(number, id)| (id.clone(), *number)).collect();
        let ids: Vec<String> = ids.into_iter().map(|(_, id)| id).collect();
        let jobs = self.listed_jobs(&ids).await?;
        Ok(jobs.into_iter().filter_map(|job| Some((*numbers.get(&job.job.id.to_string())?, job))).collect())
    }

    async fn lines_with(&self, job: &str, asked: &[String]) -> Result<Vec<LogLine>, ControlError> {
        let rows = sqlx::query("SELECT line, at_ns, level, text FROM job_log WHERE job_id = $1 ORDER BY line")
            .bind(job)
            .fetch_all(&self.readers)
            .await?;
        let asked: HashSet<&String> = asked.iter().collect();
        let mut lines = Vec::new();
        for row in &rows {
            if words(row.try_get("text")?).any(|word| asked.contains(&word)) {
                lines.push(crate::job_log::line(row)?);
                if lines.len() >= LINES_MAX {
                    break;
                }
            }
        }
        Ok(lines)
    }
}

/// A job's place in the index: the one it has, or the next in its tenant's open bucket.
async fn number_of(
    connection: &mut AnyConnection,
    job: &str,
    tenant: &str,
    now_ns: i64,
) -> Result<(i64, String, i64), ControlError> {
    let known = sqlx::query(
        "SELECT log_buckets.opened_ns AS opened_ns, log_buckets.id AS id, log_bucket_jobs.number AS number \
         FROM log_bucket_jobs JOIN log_buckets ON log_buckets.id = log_bucket_jobs.bucket_id \
         WHERE log_bucket_jobs.job_id = $1",
    )
    .bind(job)
    .fetch_optional(&mut *connection)
    .await?;
    if let Some(row) = known {
        return Ok((row.try_get("opened_ns")?, row.try_get("id")?, row.try_get("number")?));
    }
    let open = sqlx::query(
        "SELECT id, opened_ns, jobs FROM log_buckets WHERE tenant_id = $1 ORDER BY opened_ns DESC, id DESC LIMIT 1",
    )
    .bind(tenant)
    .fetch_optional(&mut *connection)
    .await?;
    let mut place = None;
    let mut newest_ns = i64::MIN;
    if let Some(row) = open {
        let (opened_ns, jobs): (i64, i64) = (row.try_get("opened_ns")?, row.try_get("jobs")?);
        newest_ns = opened_ns;
        if jobs < BUCKET_JOBS_MAX && now_ns.saturating_sub(opened_ns) < BUCKET_AGE_MAX_NS {
            place = Some((opened_ns, row.try_get::<String, _>("id")?, jobs));
        }
    }
    let (opened_ns, bucket, number) = match place {
        Some(place) => place,
        None => {
            // Behind every other one of the tenant, also when the clock went back.
            let (id, opened_ns) = (BucketId::generate()?.to_string(), now_ns.max(newest_ns.saturating_add(1)));
            sqlx::query("INSERT INTO log_buckets (id, tenant_id, opened_ns, jobs) VALUES ($1, $2, $3, 0)")
                .bind(&id)
                .bind(tenant)
                .bind(opened_ns)
                .execute(&mut *connection)
                .await?;
            (opened_ns, id, 0)
        }
    };
    sqlx::query("UPDATE log_buckets SET jobs = $1 WHERE id = $2")
        .bind(number + 1)
        .bind(&bucket)
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO log_bucket_jobs (bucket_id, number, job_id) VALUES ($1, $2, $3)")
        .bind(&bucket)
        .bind(number)
        .bind(job)
        .execute(connection)
        .await?;
    Ok((opened_ns, bucket, number))
}

async fn add_words(
    connection: &mut AnyConnection,
    opened_ns: i64,
    bucket: &str,
    tenant: &str,
    new: BTreeMap<String, Members>,
) -> Result<(), ControlError> {
    for (word, mut members) in new {
        let known: Option<String> =
            sqlx::query_scalar("SELECT members FROM log_words WHERE word = $1 AND opened_ns = $2 AND bucket_id = $3")
                .bind(&word)
                .bind(opened_ns)
                .bind(bucket)
                .fetch_optional(&mut *connection)
                .await?;
        let text = match &known {
            Some(text) => {
                for (bits, others) in members.0.iter_mut().zip(Members::stored(text)?.0) {
                    *bits |= others;
                }
                "UPDATE log_words SET members = $4 WHERE word = $1 AND opened_ns = $2 AND bucket_id = $3 \
                 AND tenant_id = $5"
            }
            None => {
                "INSERT INTO log_words (word, opened_ns, bucket_id, members, tenant_id) VALUES ($1, $2, $3, $4, $5)"
            }
        };
        sqlx::query(text)
            .bind(&word)
            .bind(opened_ns)
            .bind(bucket)
            .bind(members.to_stored())
            .bind(tenant)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_read_back_few_or_many() {
        for count in [1, LIST_MAX, LIST_MAX + 1, 1024] {
            let mut members = Members::NONE;
            for number in 0..count {
                members.insert((number * 1023 / count.max(2)) as i64);
            }
            let text = members.to_stored();
            assert_eq!(Members::stored(&text).unwrap(), members, "{text}");
            assert!(text.len() <= 257, "{text}");
        }
        let (mut one, mut other) = (Members::NONE, Members::NONE);
        for number in [0, 63, 64, 1023] {
            one.insert(number);
        }
        for number in [63, 65, 1023] {
            other.insert(number);
        }
        assert_eq!(one.and(&other).numbers(), [63, 1023]);
        assert!(Members::stored("x").is_err() && Members::stored("lx").is_err() && Members::stored("bx").is_err());
    }

    #[test]
    fn words_are_what_people_search_for() {
        let found: Vec<String> =
            words("Błąd E5: /home/Ana/Post.pst (1234567 bytes, 451) 0123456789abcdef0123").collect();
        assert_eq!(found, ["błąd", "e5", "home", "ana", "post", "pst", "bytes", "451"]);
    }
}
