//! How long the server took for each request, from the lines that its log has at the level `debug`.

use std::collections::BTreeMap;

/// Milliseconds of every request, by route, and the statuses they ended with.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    by_route: BTreeMap<String, Vec<u64>>,
    /// How often each route ended with a status of 400 or above.
    pub refused: BTreeMap<(String, u16), u64>,
}

/// What must be logged for [`Latencies::of_log`] to find anything: a value of `--log`.
pub const LOG_FILTER: &str = "info,server::http=debug";

/// What every upload route has in its pattern.
const UPLOADS: &str = "/uploads/{session}/";

impl Latencies {
    /// Of the requests of upload sessions that a server's log tells of: asking, chunks, nodes, flushes, commits.
    pub fn of_log(log: &str) -> Self {
        let mut found = Latencies::default();
        for line in log.lines().filter(|line| line.contains(UPLOADS)) {
            let field = |name: &str| {
                let rest = line.split_once(name)?.1;
                Some(rest.split([' ', '"', '}']).next().unwrap_or(rest))
            };
            let route = line.split_once(UPLOADS).and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default();
            let number = |name| field(name).and_then(|text| text.parse::<u64>().ok());
            if let (Some(milliseconds), Some(status)) = (number(" milliseconds="), number(" status=")) {
                found.by_route.entry(route.to_owned()).or_default().push(milliseconds);
                if status >= 400 {
                    *found.refused.entry((route.to_owned(), status as u16)).or_default() += 1;
                }
            }
        }
        found
    }

    /// Requests.
    pub fn count(&self) -> usize {
        self.by_route.values().map(Vec::len).sum()
    }

    /// The value that `per_mille` thousandths of all requests stay at or below, milliseconds; zero without requests.
    pub fn quantile_ms(&self, per_mille: usize) -> u64 {
        quantile(self.by_route.values().flatten().copied().collect(), per_mille)
    }

    /// Each route with its requests, median and 99th percentile, for people.
    pub fn by_route(&self) -> String {
        let route = |(route, all): (&String, &Vec<u64>)| {
            let (median, high) = (quantile(all.clone(), 500), quantile(all.clone(), 990));
            format!("{route} {} requests, median {median} ms, p99 {high} ms", all.len())
        };
        self.by_route.iter().map(route).collect::<Vec<_>>().join("; ")
    }
}

fn quantile(mut all: Vec<u64>, per_mille: usize) -> u64 {
    all.sort_unstable();
    let rank = (all.len() * per_mille).div_ceil(1000);
    all.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_off_the_log() {
        let log = "2026-11-21T11:30:57.1Z DEBUG request{id=00 method=POST route=\"/api/v1/vaults/{vault}/uploads/{session}/have\"}: server::http::envelope: answered status=200 milliseconds=4\n\
            2026-11-21T11:30:57.2Z DEBUG request{id=01 method=POST route=\"/api/v1/vaults/{vault}/uploads/{session}/nodes\"}: server::http::envelope: answered status=409 milliseconds=40\n\
            2026-11-21T11:30:57.3Z DEBUG request{id=02 method=GET route=\"/api/v1/me\"}: server::http::envelope: answered status=200 milliseconds=400\n";
        let found = Latencies::of_log(log);
        assert_eq!((found.count(), found.quantile_ms(500), found.quantile_ms(990)), (2, 4, 40));
        assert_eq!(found.refused.get(&("nodes".to_owned(), 409)), Some(&1));
        assert_eq!(Latencies::of_log("").quantile_ms(990), 0);
    }
}
