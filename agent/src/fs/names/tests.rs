//! Names and paths of every kind.

use super::*;

fn sorted(names: &[Vec<u8>], bytes_max: usize) -> (Vec<Vec<u8>>, bool) {
    let mut sorter = NameSorter::new(bytes_max, SpillPlace::default());
    for name in names {
        sorter.push(name).unwrap();
    }
    let spilled = sorter.spilled.is_some();
    let mut sorted = sorter.finish().unwrap();
    let (mut out, mut name) = (Vec::new(), Vec::new());
    while sorted.next(&mut name).unwrap() {
        out.push(name.clone());
    }
    (out, spilled)
}

fn names(count: u64) -> Vec<Vec<u8>> {
    // A full-period generator gives every number once, in a scattered order.
    let mut state = 7u64;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut name = format!("{:x}", state >> 20).into_bytes();
            name.push(0xff);
            name
        })
        .collect()
}

#[test]
fn spilled_runs_merge_into_the_same_order() {
    let names = names(20_000);
    let mut expected = names.clone();
    expected.sort();
    let (all, spilled) = sorted(&names, usize::MAX);
    assert!(!spilled);
    assert_eq!(all, expected);
    let (all, spilled) = sorted(&names, 10_000);
    assert!(spilled);
    assert_eq!(all, expected);
}

#[test]
fn spills_exactly_above_the_limit() {
    let names = names(1000);
    let exact: usize = names.iter().map(|name| name.len() + NAME_OVERHEAD_BYTES).sum();
    assert!(!sorted(&names, exact).1);
    let (all, spilled) = sorted(&names, exact - 1);
    assert!(spilled);
    assert_eq!(all.len(), 1000);
}

#[test]
fn a_million_names_stay_in_memory() {
    assert!(1_000_000 * (b"file-0000000.txt".len() + NAME_OVERHEAD_BYTES) < LISTING_BYTES_MAX);
}

#[test]
fn waiting_names_nest_like_a_stack() {
    for bytes_max in [0, 40, 1000, usize::MAX] {
        let mut stack = WaitingStack::new(bytes_max, SpillPlace::default());
        let mut name = Vec::new();
        let mut outer = WaitingNames::default();
        for number in 0..50 {
            outer.push(&mut stack, format!("outer{number}").as_bytes()).unwrap();
        }
        for number in 0..50 {
            assert!(outer.next(&mut stack, &mut name).unwrap());
            assert_eq!(name, format!("outer{number}").into_bytes(), "limit {bytes_max}");
            let mut inner = WaitingNames::default();
            for number in 0..20 {
                inner.push(&mut stack, format!("inner{number}").as_bytes()).unwrap();
            }
            for number in 0..20 {
                assert!(inner.next(&mut stack, &mut name).unwrap());
                assert_eq!(name, format!("inner{number}").into_bytes());
            }
            assert!(!inner.next(&mut stack, &mut name).unwrap());
        }
        assert!(!outer.next(&mut stack, &mut name).unwrap());
        assert_eq!((stack.held, stack.end), (0, 0));
    }
}
