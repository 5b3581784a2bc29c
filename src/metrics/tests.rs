use super::*;
use crate::clock::Monotonic;

fn names(list: &[&str]) -> std::vec::IntoIter<Arc<str>> {
    list.iter().map(|name| Arc::from(*name)).collect::<Vec<_>>().into_iter()
}

fn counted(meter: &Meter) -> Vec<(String, u8, u16, u64)> {
    let counters = meter.counters();
    let all = counters.requests();
    all.map(|(label, n)| (label.server.to_string(), label.method, label.status, n)).collect()
}

#[test]
fn a_server_keeps_its_count_when_a_reload_moves_its_index() {
    let meter = Meter::new(0);
    meter.set_servers(names(&["a", "b"]));
    meter.request(Some(0), 3, Decision::Permit, 200);
    meter.request(Some(1), 3, Decision::Permit, 200);
    meter.set_servers(names(&["b", "a"]));
    meter.request(Some(0), 3, Decision::Permit, 200);
    meter.request(None, 0, Decision::Deny, 401);
    let expected = [("a", 3, 200, 1), ("b", 3, 200, 2), ("", 0, 401, 1)]
        .map(|(s, m, t, n)| (s.to_owned(), m, t, n));
    assert_eq!(counted(&meter), expected);
    meter.upstream_connections(1, 2, 5);
    meter.set_servers(names(&["a"]));
    let gauges = || -> Vec<_> {
        meter.counters().servers().map(|it| (it.server.to_owned(), it.active, it.idle)).collect()
    };
    assert_eq!(gauges(), [("a".to_owned(), 0, 0)]);
    meter.upstream_connections(0, 1, 4);
    assert_eq!(gauges(), [("a".to_owned(), 1, 4)]);
}

#[test]
fn what_is_known_of_a_server_is_of_this_configuration_but_for_its_last_error() {
    let meter = Meter::new(0);
    meter.set_servers(names(&["a", "b"]));
    let counters = meter.share();
    meter.upstream_error(1, Reject::UpstreamTimeout, Monotonic(7));
    let view = counters.servers().next().unwrap();
    assert_eq!((view.server, view.breaker, view.era), ("b", BreakerState::Closed, None));
    assert_eq!(view.last_error, Some(("upstream_timeout", Monotonic(7))));
    for state in BreakerState::ALL {
        meter.upstream_breaker(1, state);
        assert_eq!(counters.servers().next().unwrap().breaker, state);
    }
    let seen = [
        (SeenEra::Legacy, SeenEra::Legacy),
        (SeenEra::Legacy, SeenEra::Legacy),
        (SeenEra::Modern, SeenEra::Both),
        (SeenEra::Legacy, SeenEra::Both),
    ];
    for (era, shown) in seen {
        meter.upstream_era(1, era);
        assert_eq!(counters.servers().next().unwrap().era, Some(shown));
    }
    meter.upstream_error(1, Reject::UpstreamConnect, Monotonic(9));
    meter.set_servers(names(&["b"]));
    let view = counters.servers().next().unwrap();
    assert_eq!((view.server, view.breaker, view.era), ("b", BreakerState::Closed, None));
    assert_eq!(view.last_error, Some(("upstream_connect", Monotonic(9))));
}

#[test]
fn more_labels_than_slots_are_counted_as_other_and_none_is_lost() {
    let meter = Meter::new(0);
    meter.set_servers(names(&["a"]));
    let rounds = METRIC_REQUEST_SLOTS_MAX as u64 + 10;
    for round in 0..rounds {
        meter.request(Some(0), (round >> 12) as u8, Decision::Error, (round & 0xfff) as u16);
    }
    let counters = meter.share();
    assert_eq!(counters.requests().count(), METRIC_REQUEST_SLOTS_MAX);
    assert_eq!(counters.requests_other(), 10);
    // A label that has its slot still finds it.
    meter.request(Some(0), 0, Decision::Error, 0);
    assert_eq!(counters.requests().next().map(|(_, count)| count), Some(2));
}

#[test]
fn every_reject_has_room_for_its_count() {
    let meter = Meter::new(0);
    // The last variant; numbers are dense from 0.
    meter.refusal(Reject::UpstreamContentType);
    meter.refusal(Reject::RequestMalformed);
    let refusals: Vec<_> = meter.counters().refusals().collect();
    assert_eq!(refusals, [("http_malformed", 1), ("upstream_content_type", 1)]);
    const { assert!((Reject::UpstreamContentType as usize) < REFUSALS_MAX) };
}

#[test]
fn histogram_bounds_rise_from_one_microsecond_by_half_octaves() {
    assert_eq!(HISTOGRAM_BOUNDS[..8], [1, 2, 3, 4, 6, 8, 12, 16]);
    assert_eq!(HISTOGRAM_BOUNDS.last(), Some(&(1 << 32)));
    assert!(HISTOGRAM_BOUNDS.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn a_duration_falls_into_the_first_bucket_that_holds_it() {
    for (micros, index) in
        [(0, 0), (1, 0), (2, 1), (3, 2), (5, 4), (6, 4), (1 << 32, 63), (u64::MAX, 64)]
    {
        let meter = Meter::new(0);
        meter.counters().overhead.record(micros);
        let (buckets, sum) = meter.counters().overhead.read();
        let buckets: Vec<_> = buckets.collect();
        assert_eq!(buckets.iter().position(|count| *count == 1), Some(index), "{micros}");
        assert_eq!(sum, micros);
    }
}

#[test]
fn gauges_do_not_fall_below_zero() {
    let meter = Meter::new(0);
    meter.counters().connections.add(2);
    meter.counters().connections.sub(1);
    assert_eq!(meter.counters().connections.get(), 1);
    meter.counters().connections.sub(5);
    assert_eq!(meter.counters().connections.get(), 0);
}

#[test]
fn process_counters_add_from_any_thread() {
    let process = ProcessCounters::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    process.audit(AuditOutcome::Dropped, 1);
                    process.jwks_refresh("https://idp", RefreshOutcome::Failed);
                }
            });
        }
    });
    assert_eq!(process.audit_records().nth(1), Some((AuditOutcome::Dropped, 4000)));
    let expected = [("https://idp".to_owned(), RefreshOutcome::Failed, 4000)];
    assert_eq!(process.jwks_refreshes(), expected);
    assert!(process.reload_successful());
    process.set_reload(false);
    assert!(!process.reload_successful());
}

/// Two cores count side by side: nothing that one writes is on a line of the other's, nor of
/// anything else that was allocated before or after.
#[test]
fn share_nothing_counters_stand_alone() {
    use crate::lines::LINES_BYTES;

    fn alone<T>(value: &T) {
        assert_eq!(align_of::<T>() % LINES_BYTES, 0);
        assert_eq!(size_of::<T>() % LINES_BYTES, 0);
        assert_eq!(std::ptr::from_ref(value).addr() % LINES_BYTES, 0);
    }

    let meters = [Meter::new(0), Meter::new(1)];
    for meter in &meters {
        // Every field of it has the same writer, so offsets within do not matter.
        let Counters { refusals, requests, servers, .. } = meter.counters();
        alone(meter.counters());
        alone(&**refusals);
        alone(&**requests);
        alone(&**servers);
    }
    alone(&ProcessCounters::default());
}
