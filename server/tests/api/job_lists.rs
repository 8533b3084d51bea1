//! Every filter and order of the list of jobs that the API documents, over HTTP: alone, in pairs, and in each order. One
//! that is documented and not known here fails, as does one of those that must be there and is not documented.

use crate::harness::{Client, Server, ok};
use crate::webhooks::{Customer, local};
use api::jobs::{JobState, ListedJob};
use api::page::Page;
use serde_json::Value;

/// What a list of jobs must be able to do.
const FILTERS: [&str; 8] = ["computer", "from_ns", "kind", "plan", "state", "tenant", "to_ns", "user"];
const SORTS: [&str; 3] = ["end", "start", "state"];

/// A filter with a value, as it stands in a request.
type Filter = (String, String);

fn word(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).unwrap().as_str().unwrap().to_owned()
}

/// What lists sorted this way go by first.
fn at_ns(job: &ListedJob, sort: &str) -> i64 {
    match sort {
        "end" => job.job.ended_ns.unwrap_or(i64::MAX),
        _ => job.job.started_ns,
    }
}

fn lets_through((name, value): &Filter, job: &ListedJob, sort: &str) -> bool {
    let number = || value.parse::<i64>().unwrap();
    match name.as_str() {
        "state" => word(job.job.state) == *value,
        "kind" => word(job.job.kind) == *value,
        "tenant" => job.tenant == *value,
        "user" => job.job.user == *value,
        "computer" => job.job.computer == *value,
        "plan" => job.job.plan.as_ref() == Some(value),
        "from_ns" => at_ns(job, sort) >= number(),
        "to_ns" => at_ns(job, sort) < number(),
        other => panic!("the filter {other} is documented and not tested"),
    }
}

fn expected(all: &[ListedJob], filters: &[&Filter], sort: &str, ascending: bool) -> Vec<String> {
    let mut found: Vec<&ListedJob> =
        all.iter().filter(|job| filters.iter().all(|filter| lets_through(filter, job, sort))).collect();
    found.sort_by_key(|job| {
        let worst_last = control::JOB_STATE_ORDER.iter().rev().position(|state| state.as_str() == word(job.job.state));
        (if sort == "state" { worst_last } else { None }, at_ns(job, sort), job.job.id.clone())
    });
    if !ascending {
        found.reverse();
    }
    found.into_iter().map(|job| job.job.id.clone()).collect()
}

async fn listed(client: &Client, query: &str) -> Vec<ListedJob> {
    let page: Page<ListedJob> = ok(client.get(&format!("/api/v1/jobs?limit=200{query}")).await).await;
    page.items
}

/// The names of the parameters that choose among jobs, and the words that each knows.
fn documented() -> Vec<(String, Vec<String>)> {
    let document: Value = serde_json::from_str(&server::http::openapi_document().unwrap()).unwrap();
    let parameters = document["paths"]["/api/v1/jobs"]["get"]["parameters"].as_array().unwrap().clone();
    let name = |parameter: &Value| parameter["name"].as_str().unwrap().to_owned();
    let words = |parameter: &Value| {
        let words = parameter["schema"]["enum"].as_array().cloned().unwrap_or_default();
        words.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    parameters
        .iter()
        .map(|parameter| (name(parameter), words(parameter)))
        .filter(|(name, _)| !matches!(name.as_str(), "limit" | "after" | "ascending"))
        .collect()
}

#[tokio::test]
async fn every_documented_filter_and_order_finds_what_it_says() {
    let server = Server::start();
    let customers = [
        Customer::new(&server, "Acme", "anna@acme.example").await,
        Customer::new(&server, "Other", "o@o.example").await,
    ];
    for state in [JobState::Failed, JobState::Succeeded, JobState::Warning, JobState::Cancelled, JobState::Succeeded] {
        for customer in &customers {
            customer.job(state, "said").await;
        }
    }
    let local = local(&server);
    let queued: api::jobs::Job = ok(customers[0].order_backup().await).await;
    assert_eq!(queued.state, JobState::Queued);
    let all = listed(&local, "").await;
    assert_eq!(all.len(), 11);

    let mut documented = documented();
    let sorts = documented.iter().position(|(name, _)| name == "sort").unwrap();
    let (_, mut sorts) = documented.remove(sorts);
    sorts.sort();
    assert_eq!(sorts, SORTS, "an order is missing, or not tested");
    let mut names: Vec<&str> = documented.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, FILTERS, "a filter is missing, or not tested");

    let middle_ns = all[all.len() / 2].job.started_ns;
    let mut singles: Vec<Filter> = Vec::new();
    for (name, words) in &documented {
        let of_jobs: Vec<String> = match name.as_str() {
            "tenant" => customers.iter().map(|customer| customer.tenant.clone()).collect(),
            "user" => customers.iter().map(|customer| customer.plan.user.clone()).collect(),
            "computer" => customers.iter().map(|customer| customer.plan.computer.clone()).collect(),
            "plan" => customers.iter().map(|customer| customer.plan.id.clone()).collect(),
            "from_ns" | "to_ns" => vec![middle_ns.to_string()],
            _ => words.clone(),
        };
        assert!(!of_jobs.is_empty(), "nothing is asked for with {name}");
        singles.extend(of_jobs.into_iter().map(|value| (name.clone(), value)));
    }
    let mut chosen: Vec<Vec<&Filter>> = vec![Vec::new()];
    for (at, one) in singles.iter().enumerate() {
        chosen.push(vec![one]);
        chosen.extend(singles[at + 1..].iter().filter(|other| other.0 != one.0).map(|other| vec![one, other]));
    }
    for filters in &chosen {
        let query: String = filters.iter().map(|(name, value)| format!("&{name}={value}")).collect();
        for sort in SORTS {
            for ascending in [false, true] {
                let query = format!("{query}&sort={sort}&ascending={ascending}");
                let found: Vec<String> = listed(&local, &query).await.into_iter().map(|job| job.job.id).collect();
                assert_eq!(found, expected(&all, filters, sort, ascending), "{query}");
            }
        }
    }
}
