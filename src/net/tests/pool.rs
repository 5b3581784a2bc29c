use std::io::{Read, Write};

use super::*;
use crate::net::pool::Pool;
use crate::net::runtime;

/// Puts `count` connections under `key`, one microsecond apart from `since`; gives their far ends,
/// whose calls take effect at once.
async fn fill(
    pool: &Pool<&'static str>,
    key: &'static str,
    count: u64,
    since: Monotonic,
    timers: &Timers,
) -> Vec<(std::net::TcpStream, SocketAddr)> {
    let mut ends = Vec::new();
    for number in 0..count {
        let (listener, address) = loopback();
        let mut near = dial(&[address], None, timers, soon(timers)).await.unwrap();
        let (mut far, _) = listener.accept().unwrap();
        // As after an answer.
        far.write_all(b"answer").unwrap();
        near.read(Vec::new(), soon(timers)).await.0.unwrap();
        pool.put(key, near, Monotonic(since.0 + number));
        ends.push((far, address));
    }
    ends
}

#[test]
fn the_last_one_put_is_the_first_one_taken() {
    on_every_driver(|timers| async move {
        let pool = Pool::new(3);
        let now = timers.exact();
        let ends = fill(&pool, "a", 4, now, &timers).await;
        assert_eq!(pool.count(), 3, "the oldest made room");
        assert!(pool.take(&"b", now).is_none());
        for (_, address) in ends.iter().skip(1).rev() {
            assert_eq!(pool.take(&"a", now).unwrap().peer(), *address);
        }
        assert!(pool.take(&"a", now).is_none());
    });
}

#[test]
fn closed_and_poisoned_connections_are_not_given_out() {
    on_every_driver(|timers| async move {
        let pool = Pool::new(8);
        let now = timers.exact();
        let mut ends = fill(&pool, "a", 4, now, &timers).await;
        // Taken in the order closed, poisoned, good.
        drop(ends.pop());
        ends[2].0.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let later = now.after(Duration::from_millis(20));
        let good = ends[1].1;
        assert_eq!(pool.take(&"a", later).unwrap().peer(), good);
        assert_eq!(pool.count(), 1);
        drop(ends);
        assert!(pool.take(&"a", later).is_none());
    });
}

#[test]
fn old_connections_are_closed() {
    on_every_driver(|timers| async move {
        let pool = Pool::new(8);
        let now = timers.exact();
        let mut ends = fill(&pool, "a", 2, now, &timers).await;
        let minute = now.after(Duration::from_secs(60));
        assert!(pool.take(&"a", Monotonic(minute.0 + 1)).is_none());
        assert_eq!(pool.count(), 0);
        ends.extend(fill(&pool, "a", 2, now, &timers).await);
        pool.sweep(minute);
        assert_eq!(pool.count(), 1);
        pool.sweep(Monotonic(minute.0 + 1));
        assert_eq!(pool.count(), 0);
        for (mut far, _) in ends {
            runtime::turn().await;
            far.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            assert_eq!(far.read(&mut [0]).unwrap(), 0, "it was closed");
        }
    });
}
