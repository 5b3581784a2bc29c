//! What the servers list, remembered for a while.
//!
//! A list is remembered as the server gave it, so it does not depend on policies: what of it is
//! shown, and whether a call is permitted, is judged each time it is asked.
//!
//! # Security
//! A list may differ between users, so it is kept for one identity under one credential. Only one
//! that its server calls public is shared, and only where the configuration says that this server
//! may be believed (`share_public_results`) and its credential is nobody's own. A fetch that began
//! before a reload, a revocation or news from the server is not remembered. Which error is safe:
//! forgetting costs one fetch.

use std::collections::VecDeque;
use std::rc::Rc;

use hashbrown::HashMap;

use crate::clock::Monotonic;
use crate::core_cell::CoreCell;
use crate::limits::{CATALOG_LIFETIME, CATALOG_ROUTING, CATALOGS_BYTES_PER_CORE_MAX};
use crate::mcp::Listed;
use crate::mcp::catalog::Catalog;

/// For whom a server listed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Whoever has this identity digest.
    Identity([u8; 32]),
    /// Everybody.
    Shared,
}

/// Which list it is. All of it must be the same to be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CatalogKey {
    /// For whom.
    pub owner: Owner,
    /// Index of the server in the configuration `generation`.
    pub server: u16,
    /// Index of the credential there.
    pub credential: Option<u16>,
    /// The configuration: after another one nothing of this is used again.
    pub generation: u64,
    /// The revision that the server was asked in.
    pub revision: &'static str,
    /// What is listed.
    pub listed: Listed,
}

/// What a list is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// To be shown: as long as its server says, at most `CATALOG_LIFETIME`.
    Listing,
    /// To know which server has what: of a server that wants to be asked each time, too, for
    /// `CATALOG_ROUTING`.
    Routing,
}

/// The lists of one core: at most `CATALOGS_BYTES_PER_CORE_MAX`, of which the oldest go.
#[derive(Default)]
pub struct Catalogs(CoreCell<Table>);

#[derive(Default)]
struct Table {
    /// Counts what voids every list: a fetch that began before may have used what was revoked.
    voided: u64,
    /// Counts what a server said of changes, since the configuration is in force: a fetch that
    /// began before may have seen what is no more. Of one server it voids nothing of another.
    news: HashMap<(u16, Listed), u64>,
    /// The newest configuration that was seen.
    generation: u64,
    entries: HashMap<CatalogKey, Kept>,
    /// In the order of their fetches; some may be gone or kept anew.
    order: VecDeque<(CatalogKey, u64)>,
    bytes: usize,
    numbers: u64,
}

struct Kept {
    catalog: Rc<Catalog>,
    /// When its fetch began.
    since: Monotonic,
    number: u64,
}

/// What [`Catalogs::find`] found.
#[must_use]
pub enum Found {
    /// A list that may be used, and for how many milliseconds more it may be shown.
    Known(Rc<Catalog>, u64),
    /// None: there is one to be fetched.
    Unknown(Fetch),
}

/// A fetch that begins now, and may be remembered if nothing is voided before it ends.
#[must_use]
pub struct Fetch {
    key: CatalogKey,
    voided: u64,
    news: u64,
    since: Monotonic,
}

impl Catalogs {
    /// The list of `key`, whose owner is an identity, or one that is everybody's.
    pub fn find(&self, key: &CatalogKey, what_for: Use, now: Monotonic) -> Found {
        self.0.with(|table| {
            table.enter(key.generation);
            let shared = CatalogKey { owner: Owner::Shared, ..*key };
            let found = [key, &shared].into_iter().find_map(|key| table.find(key, what_for, now));
            match found {
                Some((catalog, left_ms)) => Found::Known(catalog, left_ms),
                None => Found::Unknown(Fetch {
                    key: *key,
                    voided: table.voided,
                    news: table.news(key),
                    since: now,
                }),
            }
        })
    }

    /// Takes in what a fetch came to. It serves the request that began it in any case. `may_share`:
    /// the configuration lets what this server calls public be shared, and the credential that was
    /// sent is nobody's own.
    pub fn keep(&self, fetch: Fetch, catalog: Catalog, may_share: bool) -> Rc<Catalog> {
        let catalog = Rc::new(catalog);
        let public = may_share && catalog.is_public();
        let owner = if public { Owner::Shared } else { fetch.key.owner };
        let key = CatalogKey { owner, ..fetch.key };
        self.0.with(|table| {
            let is_current = table.voided == fetch.voided && table.news(&key) == fetch.news;
            if is_current && table.generation == key.generation {
                table.insert(key, Rc::clone(&catalog), fetch.since);
            }
        });
        catalog
    }

    /// The server said that what it lists has changed.
    pub fn forget(&self, server: u16, listed: Listed) {
        self.0.with(|table| {
            *table.news.entry((server, listed)).or_default() += 1;
            let Table { entries, bytes, .. } = table;
            entries.retain(|key, kept| {
                let stays = key.server != server || key.listed != listed;
                if !stays {
                    *bytes -= cost(&kept.catalog);
                }
                stays
            });
        });
    }

    /// Forgets everything: credentials were revoked.
    pub fn purge(&self) {
        self.0.with(|table| {
            table.voided += 1;
            table.clear();
        });
    }

    /// Bytes that are remembered, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.with(|table| table.bytes)
    }
}

impl Table {
    /// Another configuration may mean another server by the same index.
    fn enter(&mut self, generation: u64) {
        if generation > self.generation {
            self.generation = generation;
            self.news.clear();
            self.clear();
        }
    }

    fn news(&self, key: &CatalogKey) -> u64 {
        self.news.get(&(key.server, key.listed)).copied().unwrap_or(0)
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
        self.bytes = 0;
    }

    fn find(
        &mut self,
        key: &CatalogKey,
        what_for: Use,
        now: Monotonic,
    ) -> Option<(Rc<Catalog>, u64)> {
        let kept = self.entries.get(key)?;
        let age_ms = now.micros_since(kept.since) / 1000;
        let ttl_ms = kept.catalog.ttl_ms().min(millis(CATALOG_LIFETIME));
        let life_ms = match what_for {
            Use::Listing => ttl_ms,
            Use::Routing if ttl_ms == 0 => millis(CATALOG_ROUTING),
            Use::Routing => ttl_ms,
        };
        if age_ms < life_ms {
            return Some((Rc::clone(&kept.catalog), ttl_ms.saturating_sub(age_ms)));
        }
        if age_ms >= ttl_ms.max(millis(CATALOG_ROUTING)) {
            self.remove(key);
        }
        None
    }

    fn insert(&mut self, key: CatalogKey, catalog: Rc<Catalog>, since: Monotonic) {
        let bytes = cost(&catalog);
        if bytes > CATALOGS_BYTES_PER_CORE_MAX {
            return;
        }
        self.remove(&key);
        while self.bytes + bytes > CATALOGS_BYTES_PER_CORE_MAX {
            let Some((oldest, number)) = self.order.pop_front() else { break };
            if self.entries.get(&oldest).is_some_and(|kept| kept.number == number) {
                self.remove(&oldest);
            }
        }
        self.numbers += 1;
        self.order.push_back((key, self.numbers));
        self.entries.insert(key, Kept { catalog, since, number: self.numbers });
        self.bytes += bytes;
        // What is gone or was kept anew must not be remembered for ever in the order.
        if self.order.len() > 2 * self.entries.len() + ORDER_SLACK {
            let Self { order, entries, .. } = self;
            order.retain(|(key, number)| entries.get(key).is_some_and(|k| k.number == *number));
        }
    }

    fn remove(&mut self, key: &CatalogKey) {
        if let Some(kept) = self.entries.remove(key) {
            self.bytes -= cost(&kept.catalog);
        }
    }
}

/// Bytes that an entry takes, so that empty lists are not free.
fn cost(catalog: &Catalog) -> usize {
    catalog.bytes() + size_of::<Catalog>() + ENTRY_BYTES
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What the tables hold for one entry, about: its key twice, and what stands free.
const ENTRY_BYTES: usize = 4 * size_of::<(CatalogKey, Kept)>();
/// Places in the order that may be void before it is tidied up.
const ORDER_SLACK: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::catalog::Gatherer;
    use crate::mcp::span::Document;

    const KEY: CatalogKey = CatalogKey {
        owner: Owner::Identity([1; 32]),
        server: 0,
        credential: Some(0),
        generation: 1,
        revision: "2025-11-25",
        listed: Listed::Tools,
    };

    const KEY_OF_TWO: CatalogKey = CatalogKey { server: 2, ..KEY };

    fn catalog(ttl_ms: u64, scope: &str, bytes: usize) -> Catalog {
        let items: Vec<String> = (0..bytes.div_ceil(60_000))
            .map(|at| format!(r#"{{"name":"t{at}","d":"{}"}}"#, "x".repeat(bytes.min(60_000))))
            .collect();
        let items = items.join(",");
        let text = format!(r#"{{"tools":[{items}],"ttlMs":{ttl_ms},"cacheScope":"{scope}"}}"#);
        let mut document = Document::new();
        let _ = document.read(text.as_bytes()).unwrap();
        let mut gatherer = Gatherer::new(Listed::Tools);
        let page = gatherer.page(&document, document.root().unwrap(), text.as_bytes());
        assert_eq!(page, Ok(None));
        gatherer.finish()
    }

    fn at(ms: u64) -> Monotonic {
        Monotonic(ms * 1000)
    }

    fn fetch(catalogs: &Catalogs, key: &CatalogKey, now: Monotonic) -> Fetch {
        match catalogs.find(key, Use::Routing, now) {
            Found::Unknown(fetch) => fetch,
            Found::Known(..) => panic!("it is known"),
        }
    }

    fn left(catalogs: &Catalogs, key: &CatalogKey, what_for: Use, ms: u64) -> Option<u64> {
        match catalogs.find(key, what_for, at(ms)) {
            Found::Known(_, left_ms) => Some(left_ms),
            Found::Unknown(_) => None,
        }
    }

    #[test]
    fn a_list_is_used_as_long_as_its_server_says() {
        let catalogs = Catalogs::default();
        let life_ms = millis(CATALOG_LIFETIME);
        let routing_ms = millis(CATALOG_ROUTING);
        for (ttl_ms, listing, routing) in [
            (0, 0, routing_ms),
            (100, 100, 100),
            (life_ms - 1, life_ms - 1, life_ms - 1),
            (u64::MAX, life_ms, life_ms),
        ] {
            catalogs.purge();
            let _ = catalogs.keep(fetch(&catalogs, &KEY, at(5)), catalog(ttl_ms, "", 1), true);
            for (what_for, life_ms) in [(Use::Listing, listing), (Use::Routing, routing)] {
                let last = (life_ms > 0).then(|| 5 + life_ms - 1);
                let shown = listing.saturating_sub(life_ms.saturating_sub(1));
                assert_eq!(
                    last.and_then(|last| left(&catalogs, &KEY, what_for, last)),
                    last.map(|_| shown),
                    "{ttl_ms} {what_for:?}"
                );
            }
            for (what_for, life_ms) in [(Use::Listing, listing), (Use::Routing, routing)] {
                assert_eq!(left(&catalogs, &KEY, what_for, 5 + life_ms), None, "{ttl_ms}");
            }
            let _ = catalogs.find(&KEY, Use::Routing, at(5 + life_ms.max(routing_ms)));
            assert_eq!(catalogs.bytes(), 0, "what is too old is gone");
        }
    }

    #[test]
    fn a_private_list_is_its_owners_and_a_public_one_is_shared_where_that_is_allowed() {
        let catalogs = Catalogs::default();
        let stranger = CatalogKey { owner: Owner::Identity([2; 32]), ..KEY };
        for (scope, may_share, shared) in
            [("private", true, false), ("public", false, false), ("public", true, true)]
        {
            catalogs.purge();
            let fetched = catalog(1000, scope, 1);
            let _ = catalogs.keep(fetch(&catalogs, &KEY, at(0)), fetched, may_share);
            assert!(left(&catalogs, &KEY, Use::Listing, 1).is_some());
            let seen = left(&catalogs, &stranger, Use::Listing, 1).is_some();
            assert_eq!(seen, shared, "{scope} {may_share}");
            for other in [
                CatalogKey { server: 1, ..KEY },
                CatalogKey { credential: None, ..KEY },
                CatalogKey { revision: "2026-07-28", ..KEY },
                CatalogKey { listed: Listed::Prompts, ..KEY },
            ] {
                assert_eq!(left(&catalogs, &other, Use::Routing, 1), None, "{other:?}");
            }
        }
    }

    #[test]
    fn what_began_before_news_is_not_remembered() {
        let catalogs = Catalogs::default();
        let other = CatalogKey { server: 1, ..KEY };
        let keep = |fetch| catalogs.keep(fetch, catalog(1000, "private", 1), true);
        let _ = keep(fetch(&catalogs, &KEY, at(0)));
        let _ = keep(fetch(&catalogs, &other, at(0)));
        let before = catalogs.bytes();
        let under_way = fetch(&catalogs, &KEY_OF_TWO, at(1));
        catalogs.forget(0, Listed::Prompts);
        assert_eq!(catalogs.bytes(), before, "another list is no news");
        catalogs.forget(0, Listed::Tools);
        assert_eq!(catalogs.bytes(), before / 2);
        assert_eq!(left(&catalogs, &KEY, Use::Routing, 1), None);
        assert!(left(&catalogs, &other, Use::Routing, 1).is_some());
        assert_eq!(keep(under_way).len(), 1);
        assert!(left(&catalogs, &KEY_OF_TWO, Use::Routing, 1).is_some(), "news of another");
        let under_way = fetch(&catalogs, &KEY, at(1));
        catalogs.forget(0, Listed::Tools);
        assert_eq!(keep(under_way).len(), 1, "it serves who asked");
        assert_eq!(left(&catalogs, &KEY, Use::Routing, 1), None);

        let under_way = fetch(&catalogs, &KEY, at(1));
        let reloaded = CatalogKey { generation: 2, ..KEY };
        let _ = keep(fetch(&catalogs, &reloaded, at(1)));
        let _ = keep(under_way);
        assert_eq!(left(&catalogs, &KEY, Use::Routing, 2), None);
        assert!(left(&catalogs, &reloaded, Use::Routing, 2).is_some());
        let under_way = fetch(&catalogs, &CatalogKey { server: 3, ..reloaded }, at(2));
        catalogs.purge();
        let _ = keep(under_way);
        assert_eq!(catalogs.bytes(), 0);
    }

    #[test]
    fn the_table_is_bounded_and_the_oldest_go() {
        let catalogs = Catalogs::default();
        let key = |number: u16| CatalogKey { server: number, ..KEY };
        for number in 0..40 {
            let big = catalog(60_000, "private", 3 << 20);
            let _ = catalogs.keep(fetch(&catalogs, &key(number), at(0)), big, true);
            assert!(catalogs.bytes() <= CATALOGS_BYTES_PER_CORE_MAX);
        }
        assert!(catalogs.bytes() > CATALOGS_BYTES_PER_CORE_MAX - (4 << 20));
        let known = |number| left(&catalogs, &key(number), Use::Listing, 1).is_some();
        assert!(known(39) && known(25) && !known(0) && !known(15));
        // Kept anew again and again, one list takes the place of one.
        catalogs.purge();
        for ms in 0..1000 {
            let soon = fetch(&catalogs, &KEY, at(ms * 10));
            let _ = catalogs.keep(soon, catalog(1, "private", 1), true);
        }
        let one = cost(&catalog(1, "private", 1));
        assert_eq!(catalogs.bytes(), one);
        catalogs.0.with(|table| assert!(table.order.len() <= 2 + ORDER_SLACK));
    }
}
