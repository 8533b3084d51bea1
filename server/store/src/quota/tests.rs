//! The book of limits: every rule at its edge, and random histories against sums counted anew.

use super::*;
use std::collections::BTreeMap;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn vault(number: u8) -> VaultId {
    VaultId::from_bytes([number; 16])
}

fn session(number: u8) -> UploadSessionId {
    UploadSessionId::from_bytes([number; 16])
}

fn series(number: u8) -> SeriesKey {
    ("computer".into(), number.to_string())
}

fn live(number: u8, logical: u64) -> LiveSession {
    LiveSession { id: session(number), series: series(number), logical }
}

fn limit(name: &str) -> LimitId {
    LimitId::new(name)
}

fn physical(hard: u64) -> Limits {
    Limits { physical_hard: Some(hard), ..Limits::default() }
}

fn logical(hard: u64) -> Limits {
    Limits { logical_hard: Some(hard), ..Limits::default() }
}

fn used(physical: u64, logical: u64) -> Amounts {
    Amounts { physical, logical }
}

/// A book with one vault per chain, all open and empty, each with the sessions 1 to 3.
fn book(chains: &[&[&str]]) -> (Arc<QuotaBook>, Vec<Account>) {
    let book: Arc<QuotaBook> = Arc::default();
    let accounts = chains.iter().enumerate().map(|(number, chain)| {
        let vault = vault(number as u8);
        book.set_chain(&vault, chain.iter().map(|name| limit(name)).collect());
        let account = book.account(vault);
        account.opened(Amounts::default(), Vec::new());
        for number in 1..=3 {
            account.session_begun(&session(number), series(number));
        }
        account
    });
    let accounts = accounts.collect();
    (book, accounts)
}

#[test]
fn the_last_byte_is_usable_and_the_next_is_refused_with_its_figures() {
    let (book, accounts) = book(&[&["user"]]);
    book.set_limit(limit("user"), physical(1000));
    let mut first = accounts[0].append(&session(1), None, 400).unwrap();
    accounts[0].recorded(used(400, 0), 400);
    first.hand_over_all();
    // Whatever the step of the first session was, the second one gets the rest to the last byte.
    let _rest = accounts[0].append(&session(2), None, 600).unwrap();
    match accounts[0].append(&session(3), None, 1).err().unwrap() {
        StoreError::QuotaExceeded { limit, kind, used, reserved, limit_bytes, requested } => {
            assert_eq!(limit.as_str(), "user");
            assert_eq!(kind, QuotaKind::Physical);
            assert_eq!((used, reserved, limit_bytes, requested), (400, 600, 1000, 1));
        }
        other => panic!("{other}"),
    }
    assert_eq!(book.refusals(), 1);
}

#[test]
fn a_step_is_a_share_of_what_is_left_and_never_below_the_request() {
    let (book, accounts) = book(&[&["user"]]);
    book.set_limit(limit("user"), physical(1600 * MIB));
    let reserved = || book.reading(&limit("user")).reserved_physical;
    let admission = accounts[0].admit(&session(1), 8 * MIB).unwrap();
    assert_eq!(reserved(), 100 * MIB, "one sixteenth of what is left");
    drop(admission);
    assert_eq!(reserved(), 92 * MIB, "the body's part is free again, the step's rest stays");
    let _large = accounts[0].admit(&session(2), 1000 * MIB).unwrap();
    assert_eq!(reserved(), 1092 * MIB);
    book.set_limit(limit("user"), physical(100 * GIB));
    let _other = accounts[0].admit(&session(3), 1).unwrap();
    assert_eq!(reserved(), (1092 + 256) * MIB, "never more than 256 MiB");
}

#[test]
fn without_a_hard_limit_nothing_beyond_the_request_is_reserved() {
    let (book, accounts) = book(&[&["user"]]);
    let _admission = accounts[0].admit(&session(1), 5).unwrap();
    assert_eq!(book.reading(&limit("user")).reserved_physical, 5);
}

/// Bodies take less room than the frames made of them, so more may be admitted than fit: as many get in as do, and
/// nobody is refused for the sake of one that was refused already.
#[test]
fn of_many_admitted_bodies_as_many_get_in_as_fit() {
    const FRAME: u64 = 150;
    let (book, accounts) = book(&[&["user"]]);
    for number in 4..=16 {
        accounts[0].session_begun(&session(number), series(number));
    }
    for fitting in 1..=8 {
        let free = fitting * FRAME + 49;
        let before = book.reading(&limit("user")).used_physical;
        book.set_limit(limit("user"), physical(before + free));
        let admit = |number| accounts[0].admit(&session(number), 100).ok().map(|admission| (number, admission));
        let admitted: Vec<_> = (1..=16).filter_map(admit).collect();
        assert_eq!(admitted.len() as u64, free / 100);
        // All of them append before any hears of its refusal.
        let append =
            |(number, admission): &(u8, Admission)| accounts[0].append(&session(*number), Some(admission), FRAME);
        let appended: Vec<_> = admitted.iter().map(append).collect();
        assert_eq!(appended.iter().filter(|appending| appending.is_ok()).count() as u64, fitting);
        drop((appended, admitted));
        assert_eq!(book.reading(&limit("user")).reserved_physical, 0);
    }
}

#[test]
fn what_a_sleeping_session_holds_is_taken_back_before_anyone_is_refused() {
    let (book, accounts) = book(&[&["a", "all"], &["b", "all"]]);
    book.set_limit(limit("all"), physical(160));
    drop(accounts[0].append(&session(1), None, 1).unwrap());
    assert_eq!(book.reading(&limit("all")).reserved_physical, 9);
    let all = accounts[1].admit(&session(2), 160).unwrap();
    assert_eq!(book.reading(&limit("a")).reserved_physical, 0);
    assert!(accounts[0].admit(&session(1), 1).is_err(), "what is in use is not taken back");
    drop(all);
    accounts[0].admit(&session(1), 160).unwrap();
}

#[test]
fn all_limits_of_a_chain_in_one_step_or_none() {
    let (book, accounts) = book(&[&["a", "customer", "partner"], &["b", "customer", "partner"], &["c", "partner"]]);
    book.set_limit(limit("partner"), physical(100));
    book.set_limit(limit("customer"), physical(60));
    let _first = accounts[0].append(&session(1), None, 50).unwrap();
    let refused = accounts[1].append(&session(1), None, 11).err().unwrap();
    assert!(matches!(refused, StoreError::QuotaExceeded { ref limit, .. } if limit.as_str() == "customer"));
    assert_eq!(book.reading(&limit("b")).reserved_physical, 0, "a refusal leaves nothing behind");
    assert_eq!(book.reading(&limit("partner")).reserved_physical, 50);
    let _second = accounts[2].append(&session(1), None, 50).unwrap();
    let refused = accounts[1].append(&session(1), None, 1).err().unwrap();
    assert!(matches!(refused, StoreError::QuotaExceeded { ref limit, .. } if limit.as_str() == "partner"));
}

#[test]
fn logical_bytes_are_reserved_by_the_largest_node_and_become_used_at_the_commit() {
    let (book, accounts) = book(&[&["user"]]);
    book.set_limit(limit("user"), logical(100));
    accounts[0].reserve_logical(&session(1), 30).unwrap();
    accounts[0].reserve_logical(&session(1), 20).unwrap();
    accounts[0].reserve_logical(&session(1), 60).unwrap();
    assert_eq!(book.reading(&limit("user")).reserved_logical, 60);
    assert!(accounts[0].reserve_logical(&session(2), 41).is_err());
    accounts[0].reserve_logical(&session(2), 40).unwrap();
    assert!(accounts[0].check_begin().is_err(), "nothing is left for a third");
    accounts[0].session_ended(&session(2));
    accounts[0].check_begin().unwrap();
    accounts[0].committed(used(0, 60), &[session(1)]);
    let reading = book.reading(&limit("user"));
    assert_eq!((reading.used_logical, reading.reserved_logical), (60, 0));
}

#[test]
fn the_next_run_of_a_series_has_the_room_of_the_one_that_did_not_end() {
    let (book, accounts) = book(&[&["user"]]);
    book.set_limit(limit("user"), logical(100));
    accounts[0].reserve_logical(&session(1), 80).unwrap();
    assert!(accounts[0].reserve_logical(&session(2), 80).is_err());
    accounts[0].session_begun(&session(9), series(1));
    accounts[0].reserve_logical(&session(9), 80).unwrap();
    assert!(accounts[0].reserve_logical(&session(1), 80).is_err(), "the one before must ask again");
    assert_eq!(book.reading(&limit("user")).reserved_logical, 80);
}

#[test]
fn a_limit_below_what_is_used_takes_nothing_away_and_refuses_what_comes() {
    let (book, accounts) = book(&[&["user"]]);
    book.set_limit(limit("user"), physical(1600));
    drop(accounts[0].append(&session(1), None, 10).unwrap());
    accounts[0].recorded(used(500, 0), 0);
    book.set_limit(limit("user"), physical(100));
    assert!(accounts[0].append(&session(1), None, 1).is_err(), "not even out of its own step");
    assert_eq!(book.reading(&limit("user")).used_physical, 500);
    accounts[0].recorded(used(99, 0), 0);
    accounts[0].append(&session(1), None, 1).unwrap();
}

#[test]
fn soft_limits_only_give_notice() {
    let (book, accounts) = book(&[&["user"]]);
    book.set_limit(limit("user"), Limits { physical_soft: Some(10), ..Limits::default() });
    accounts[0].recorded(used(10, 0), 0);
    assert!(!book.reading(&limit("user")).soft_exceeded);
    accounts[0].recorded(used(11, 0), 0);
    let reading = book.reading(&limit("user"));
    assert!(reading.soft_exceeded && reading.is_soft_exceeded(QuotaKind::Physical));
    assert!(!reading.is_soft_exceeded(QuotaKind::Logical));
    accounts[0].append(&session(1), None, GIB).unwrap();
}

#[test]
fn another_opening_of_the_vault_ends_what_was_reserved_before() {
    let (book, accounts) = book(&[&["user"]]);
    book.set_limit(limit("user"), physical(100));
    let appending = accounts[0].append(&session(1), None, 40).unwrap();
    let admission = accounts[0].admit(&session(1), 20).unwrap();
    let again = book.account(vault(0));
    again.opened(used(30, 5), vec![live(1, 7)]);
    let after = |book: &QuotaBook| {
        let reading = book.reading(&limit("user"));
        (reading.used_physical, reading.reserved_physical, reading.used_logical, reading.reserved_logical)
    };
    assert_eq!(after(&book), (30, 0, 5, 7));
    drop((appending, admission));
    accounts[0].recorded(used(1, 1), 1);
    accounts[0].session_ended(&session(1));
    assert_eq!(after(&book), (30, 0, 5, 7), "the account of before changes nothing any more");
    book.remove(&vault(0));
    again.recorded(used(1, 1), 0);
    assert_eq!(after(&book), (0, 0, 0, 0));
    assert!(book.readings_of(&vault(0)).is_empty());
}

#[test]
fn an_ended_session_keeps_nothing() {
    let (book, accounts) = book(&[&["user"]]);
    book.set_limit(limit("user"), physical(1600));
    let admission = accounts[0].admit(&session(1), 1).unwrap();
    accounts[0].session_ended(&session(1));
    let appending = accounts[0].append(&session(1), Some(&admission), 10).unwrap();
    assert_eq!(book.reading(&limit("user")).reserved_physical, 10);
    drop((appending, admission));
    assert_eq!(book.reading(&limit("user")).reserved_physical, 0);
}

/// Numbers that a seed gives.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What must hold, told in the plainest way: sums over lists.
#[derive(Default)]
struct Model {
    limits: BTreeMap<LimitId, Limits>,
    vaults: BTreeMap<VaultId, ModelVault>,
}

#[derive(Default)]
struct ModelVault {
    chain: Vec<LimitId>,
    used: Amounts,
    /// Bodies admitted and frames appended.
    held: u64,
    sessions: BTreeMap<UploadSessionId, u64>,
}

impl Model {
    fn under<'m>(&'m self, limit: &'m LimitId) -> impl Iterator<Item = &'m ModelVault> {
        self.vaults.values().filter(|vault| vault.chain.contains(limit))
    }

    fn used(&self, limit: &LimitId) -> Amounts {
        let sum = |of: fn(&ModelVault) -> u64| self.under(limit).map(of).sum();
        used(sum(|vault| vault.used.physical), sum(|vault| vault.used.logical))
    }

    /// Reserved beyond idle steps.
    fn held(&self, limit: &LimitId) -> Amounts {
        let sum = |of: fn(&ModelVault) -> u64| self.under(limit).map(of).sum();
        used(sum(|vault| vault.held), sum(|vault| vault.sessions.values().sum()))
    }

    fn fits(&self, vault: &VaultId, kind: QuotaKind, bytes: u64) -> bool {
        self.vaults[vault].chain.iter().all(|limit| {
            let hard = self.limits.get(limit).and_then(|limits| limits.hard(kind));
            hard.is_none_or(|hard| self.used(limit).of(kind) + self.held(limit).of(kind) + bytes <= hard)
        })
    }
}

/// Guards that the history holds.
struct Held {
    vault: VaultId,
    session: UploadSessionId,
    admission: Option<(Admission, u64)>,
    appending: Option<(Appending, u64)>,
}

fn any_limits(numbers: &mut Numbers) -> Limits {
    let mut any = || (numbers.below(4) > 0).then(|| numbers.below(3000));
    Limits { physical_soft: any(), physical_hard: any(), logical_soft: any(), logical_hard: any() }
}

fn check(book: &QuotaBook, model: &Model) {
    for name in NAMES {
        let limit = limit(name);
        let reading = book.reading(&limit);
        assert_eq!(reading.limits, model.limits.get(&limit).copied().unwrap_or_default());
        assert_eq!(used(reading.used_physical, reading.used_logical), model.used(&limit), "{name} used");
        let held = model.held(&limit);
        assert_eq!(reading.reserved_logical, held.logical, "{name} reserved");
        let inner = book.book.lock();
        let under = inner.vaults.values().filter(|vault| vault.chain.contains(&limit));
        let idle: u64 = under.flat_map(|vault| vault.sessions.values()).map(|session| session.idle).sum();
        assert_eq!(reading.reserved_physical, held.physical + idle, "{name} reserved");
        for (vault, account) in &inner.vaults {
            for (session, account) in &account.sessions {
                assert_eq!(account.idle > 0, inner.idle.contains(&(*vault, *session)));
            }
        }
    }
}

const NAMES: [&str; 5] = ["a", "b", "c", "customer", "partner"];

fn assert_within(book: &QuotaBook, model: &Model, vault: &VaultId, kind: QuotaKind) {
    for limit in &model.vaults[vault].chain {
        let reading = book.reading(limit);
        let reserved = match kind {
            QuotaKind::Physical => reading.reserved_physical,
            QuotaKind::Logical => reading.reserved_logical,
        };
        if let Some(hard) = reading.limits.hard(kind) {
            assert!(reading.used(kind) + reserved <= hard, "{limit}: a grant passes its limit");
        }
    }
}

fn assert_figures(error: &StoreError) {
    let StoreError::QuotaExceeded { used, reserved, limit_bytes, requested, .. } = error else { panic!("{error}") };
    assert!(used + reserved + requested > *limit_bytes, "{error}");
}

/// Random histories: what the book grants and refuses, and every figure it shows, is what the plain sums say.
#[test]
fn every_grant_refusal_and_figure_is_what_plain_sums_say() {
    let seed = std::env::var("HOLDFAST_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| std::process::id().into());
    println!("HOLDFAST_SEED={seed}");
    for history in 0..300 {
        run_history(seed.wrapping_mul(1_000_003).wrapping_add(history) | 1, 300);
    }
}

fn run_history(seed: u64, steps: usize) {
    let mut numbers = Numbers(seed);
    let book: Arc<QuotaBook> = Arc::default();
    let mut model = Model::default();
    let mut accounts: BTreeMap<VaultId, Account> = BTreeMap::new();
    let mut held: Vec<Held> = Vec::new();
    for number in 0..4 {
        let id = vault(number);
        model.vaults.insert(id, ModelVault::default());
        let account = book.account(id);
        account.opened(Amounts::default(), Vec::new());
        accounts.insert(id, account);
    }
    for _ in 0..steps {
        let id = vault(numbers.below(4) as u8);
        let who = session(numbers.below(3) as u8);
        let bytes = numbers.below(600);
        let account = accounts[&id].clone();
        match numbers.below(15) {
            0 => {
                let (limit, limits) = (limit(NAMES[numbers.below(5) as usize]), any_limits(&mut numbers));
                book.set_limit(limit.clone(), limits);
                model.limits.insert(limit, limits);
            }
            1 => {
                let chain: Vec<LimitId> =
                    NAMES.iter().filter(|_| numbers.below(2) == 0).map(|name| limit(name)).collect();
                book.set_chain(&id, chain.clone());
                model.vaults.get_mut(&id).unwrap().chain = chain;
            }
            2 | 3 => {
                if model.vaults.get_mut(&id).unwrap().sessions.insert(who, 0).is_none() {
                    account.session_begun(&who, (String::new(), who.to_string()));
                } else {
                    // A session's id is never used twice; this is one of the same series.
                    let other = session(200 + numbers.below(50) as u8);
                    account.session_begun(&other, (String::new(), who.to_string()));
                    account.session_ended(&other);
                }
            }
            4 | 5 => {
                let fits = bytes == 0 || model.fits(&id, QuotaKind::Physical, bytes);
                match account.admit(&who, bytes) {
                    Ok(admission) => {
                        assert!(fits, "a body was admitted that does not fit");
                        model.vaults.get_mut(&id).unwrap().held += bytes;
                        assert_within_if(bytes > 0, &book, &model, &id);
                        held.push(Held {
                            vault: id,
                            session: who,
                            admission: Some((admission, bytes)),
                            appending: None,
                        });
                    }
                    Err(error) => {
                        assert!(!fits, "refused though it fits: {error}");
                        assert_figures(&error);
                    }
                }
            }
            6..=8 => {
                let of_body = held.iter_mut().find(|held| held.vault == id && held.admission.is_some());
                let admission = of_body.as_ref().and_then(|held| held.admission.as_ref());
                let from = admission.map_or(0, |(_, left)| (*left).min(bytes));
                let who = of_body.as_ref().map_or(who, |held| held.session);
                let fits = bytes == from || model.fits(&id, QuotaKind::Physical, bytes - from);
                match account.append(&who, admission.map(|(admission, _)| admission), bytes) {
                    Ok(appending) => {
                        assert!(fits, "frames were granted that do not fit");
                        model.vaults.get_mut(&id).unwrap().held += bytes - from;
                        assert_within_if(bytes > from, &book, &model, &id);
                        if let Some((_, left)) = of_body.and_then(|held| held.admission.as_mut()) {
                            *left -= from;
                        }
                        held.push(Held {
                            vault: id,
                            session: who,
                            admission: None,
                            appending: Some((appending, bytes)),
                        });
                    }
                    Err(error) => {
                        assert!(!fits, "refused though it fits: {error}");
                        assert_figures(&error);
                        // The request is over, and what was admitted for it is free.
                        if let Some((_, left)) = of_body.and_then(|held| held.admission.as_mut()) {
                            model.vaults.get_mut(&id).unwrap().held -= std::mem::take(left);
                        }
                    }
                }
            }
            9 => {
                // Rows are written for some of the frames; the rest is given up.
                if let Some(at) = held.iter().position(|held| held.vault == id && held.appending.is_some()) {
                    let (mut appending, all) = held.swap_remove(at).appending.unwrap();
                    let rows = numbers.below(all + 1);
                    let vault = model.vaults.get_mut(&id).unwrap();
                    vault.used.physical += rows;
                    vault.held -= all;
                    account.recorded(vault.used, rows);
                    appending.hand_over(rows);
                }
            }
            10 => {
                if let Some(at) = held.iter().position(|held| held.vault == id) {
                    let gone = held.swap_remove(at);
                    let bytes = gone.admission.as_ref().map_or(0, |(_, left)| *left)
                        + gone.appending.as_ref().map_or(0, |(_, bytes)| *bytes);
                    model.vaults.get_mut(&id).unwrap().held -= bytes;
                }
            }
            11 => {
                let before = model.vaults[&id].sessions.get(&who).copied();
                let more = bytes.saturating_sub(before.unwrap_or(0));
                let fits = more == 0 || model.fits(&id, QuotaKind::Logical, more);
                match account.reserve_logical(&who, bytes) {
                    Ok(()) => {
                        assert!(fits);
                        if let Some(before) = before {
                            model.vaults.get_mut(&id).unwrap().sessions.insert(who, before.max(bytes));
                            if more > 0 {
                                assert_within(&book, &model, &id, QuotaKind::Logical);
                            }
                        }
                    }
                    Err(error) => {
                        assert!(!fits);
                        assert_figures(&error);
                    }
                }
            }
            12 => {
                let vault = model.vaults.get_mut(&id).unwrap();
                let logical = vault.sessions.remove(&who).unwrap_or(0);
                if numbers.below(2) == 0 {
                    vault.used.logical += logical;
                    account.committed(vault.used, &[who]);
                } else {
                    account.session_ended(&who);
                }
            }
            13 => {
                let vault = model.vaults.get_mut(&id).unwrap();
                vault.used = used(vault.used.physical / 2, vault.used.logical / 2);
                account.recorded(vault.used, 0);
            }
            _ if numbers.below(4) == 0 => {
                // Recovery finds more than the ledger of before counted.
                let vault = model.vaults.get_mut(&id).unwrap();
                vault.used.physical += numbers.below(100);
                vault.held = 0;
                let account = book.account(id);
                let live = |(id, logical): (&UploadSessionId, &u64)| LiveSession {
                    id: *id,
                    series: (String::new(), id.to_string()),
                    logical: *logical,
                };
                account.opened(vault.used, vault.sessions.iter().map(live).collect());
                accounts.insert(id, account);
                held.retain(|held| held.vault != id);
            }
            _ => {}
        }
        check(&book, &model);
    }
    drop(held);
    for (id, account) in &accounts {
        for number in 0..3 {
            account.session_ended(&session(number));
        }
        model.vaults.get_mut(id).unwrap().sessions.clear();
        model.vaults.get_mut(id).unwrap().held = 0;
    }
    check(&book, &model);
}

fn assert_within_if(granted: bool, book: &QuotaBook, model: &Model, vault: &VaultId) {
    if granted {
        assert_within(book, model, vault, QuotaKind::Physical);
    }
}

/// Sixteen threads for what is left: the sum never passes the limit, and the last byte is used.
#[test]
fn threads_share_what_is_left_to_the_last_byte() {
    const HARD: u64 = 10_007;
    let (book, accounts) = book(&[&["a", "all"], &["b", "all"]]);
    book.set_limit(limit("all"), physical(HARD));
    let granted = Mutex::new([0u64; 2]);
    std::thread::scope(|scope| {
        for number in 0..16u64 {
            let (account, granted) = (&accounts[number as usize % 2], &granted);
            scope.spawn(move || {
                let who = session(1 + (number % 3) as u8);
                let mut numbers = Numbers(number + 1);
                loop {
                    let bytes = 1 + numbers.below(97);
                    let Ok(admission) = account.admit(&who, bytes) else {
                        if bytes == 1 {
                            return;
                        }
                        continue;
                    };
                    let Ok(mut appending) = account.append(&who, Some(&admission), bytes) else { panic!("admitted") };
                    let mut granted = granted.lock();
                    granted[number as usize % 2] += bytes;
                    assert!(granted[0] + granted[1] <= HARD);
                    account.recorded(used(granted[number as usize % 2], 0), bytes);
                    appending.hand_over_all();
                }
            });
        }
    });
    let reading = book.reading(&limit("all"));
    assert_eq!(reading.used_physical, HARD);
}
