//! Over real pairs, on every driver. Cores are tasks of one thread here, which the pairs do not
//! know.

use std::cell::RefCell;

use super::*;
use crate::mcp::hub_session::SessionMark;
use crate::net::pairs::between;
use crate::net::tests::{on_every_driver, soon};
use crate::net::{Either, Timers, first};

/// What came to one core.
#[derive(Default)]
struct Room {
    letters: RefCell<Vec<Letter>>,
    came: Event,
}

impl Addressee for Room {
    fn deliver(&self, letter: Letter) {
        self.letters.borrow_mut().push(letter);
        self.came.ring();
    }
}

impl Room {
    async fn holds(&self, count: usize, timers: &Timers) {
        loop {
            let seen = self.came.version();
            if self.letters.borrow().len() >= count {
                return;
            }
            let late = timers.sleep_until(soon(timers));
            let Either::Left(()) = first(self.came.changed(seen), late).await else {
                panic!("{} of {count} letters came", self.letters.borrow().len());
            };
        }
    }
}

fn letter(number: u64, body: Vec<u8>) -> Letter {
    let session = SessionMark([1; 16]);
    Letter { kind: MailKind::Reply, number, from: 0, session, owner: [2; 32], body }
}

fn refuse(words: String) {
    panic!("{words}");
}

const BYTES_MAX: usize = MAIL_BODY_BYTES_MAX;

#[test]
fn letters_arrive_whole_in_order_and_at_the_right_core() {
    on_every_driver(|timers| async move {
        let posts: Vec<_> = (0..3).map(|core| Post::new(core, 3)).collect();
        let rooms: Vec<_> = (0..3).map(|_| Rc::new(Room::default())).collect();
        for ((post, room), ends) in posts.iter().zip(&rooms).zip(between(3).unwrap()) {
            post.open(ends, room, refuse).unwrap();
        }
        let mut expected = vec![Vec::new(); 3];
        for number in 0..20_u64 {
            for (from, post) in (0_u16..).zip(&posts) {
                for to in (0..3).filter(|to| *to != from) {
                    // Some of them more than a pair or a read takes at once.
                    let size = if number % 7 == 0 { 300_000 } else { number as usize };
                    let sent = letter(number, vec![from as u8; size]);
                    assert_eq!(post.send(to, &sent, BYTES_MAX), Ok(()));
                    expected[usize::from(to)].push(Letter { from, ..sent });
                }
            }
        }
        for (room, expected) in rooms.iter().zip(&expected) {
            room.holds(expected.len(), &timers).await;
            let heard = room.letters.borrow();
            for from in 0..3 {
                let of = |letters: &[Letter]| -> Vec<Letter> {
                    letters.iter().filter(|it| it.from == from).cloned().collect()
                };
                assert!(of(&heard) == of(expected), "from core {from}");
            }
        }
    });
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_waits() {
    on_every_driver(|timers| async move {
        let (near, room) = (Post::new(0, 2), Rc::new(Room::default()));
        let mut ends = between(2).unwrap().into_iter();
        near.open(ends.next().unwrap(), &room, refuse).unwrap();
        // Nobody reads at the other end: the pair fills, then what waits for it.
        let body = vec![b'x'; 64 * 1024];
        let mut taken = 0;
        while near.send(1, &letter(taken as u64, body.clone()), BYTES_MAX).is_ok() {
            taken += 1;
            assert!(taken < 10 * MAIL_LETTERS_MAX, "a pair takes much less");
            runtime::turn().await;
        }
        assert!(taken >= MAIL_LETTERS_MAX);
        let refused = letter(9_999, Vec::new());
        assert_eq!(near.send(1, &refused, BYTES_MAX), Err(Reject::MailFull));
        for nobody in [0, 2, u16::MAX] {
            assert_eq!(near.send(nobody, &refused, BYTES_MAX), Err(Reject::GatewayFault));
        }
        // Now somebody does, and there is room again.
        let (far, other) = (Post::new(1, 2), Rc::new(Room::default()));
        far.open(ends.next().unwrap(), &other, refuse).unwrap();
        other.holds(taken, &timers).await;
        assert_eq!(near.send(1, &letter(10_000, body.clone()), BYTES_MAX), Ok(()));
        other.holds(taken + 1, &timers).await;
        // The bodies together are bounded, too.
        assert_eq!(near.send(1, &letter(10_001, vec![0; 600]), 1_000), Ok(()));
        assert_eq!(near.send(1, &letter(10_002, vec![0; 600]), 1_000), Err(Reject::MailFull));
        other.holds(taken + 2, &timers).await;
        let numbers: Vec<u64> = other.letters.borrow().iter().map(|it| it.number).collect();
        let expected: Vec<u64> = (0..taken as u64).chain([10_000, 10_001]).collect();
        assert_eq!(numbers, expected);
    });
}

/// The process ends then: the worker reports what it hears here.
#[test]
fn a_broken_frame_and_a_core_that_is_gone_are_told() {
    on_every_driver(|timers| async move {
        for (bytes, expected) in [(&[0; 4][..], "frame"), (&[][..], "mail from core 1")] {
            let (post, room) = (Post::new(0, 2), Rc::new(Room::default()));
            let mut ends = between(2).unwrap().into_iter();
            let (said, heard) = (Rc::new(RefCell::new(String::new())), Rc::new(Event::default()));
            let (words, rung) = (Rc::clone(&said), Rc::clone(&heard));
            let broken = move |what: String| {
                *words.borrow_mut() = what;
                rung.ring();
            };
            post.open(ends.next().unwrap(), &room, broken).unwrap();
            let (incoming, mut outgoing) = ends.next().unwrap().pop().unwrap().open().unwrap();
            let seen = heard.version();
            if !bytes.is_empty() {
                outgoing.write(bytes.to_vec()).await.unwrap();
            }
            drop((incoming, outgoing));
            let late = timers.sleep_until(soon(&timers));
            assert_eq!(first(heard.changed(seen), late).await, Either::Left(()));
            assert!(said.borrow().contains(expected), "{}", said.borrow());
            assert!(room.letters.borrow().is_empty());
        }
    });
}

/// Nothing is written yet, because nobody opened the ends: as many letters are kept, and no more.
#[test]
fn what_is_kept_is_bounded() {
    let post = Post::new(0, 2);
    let tries = (0..2 * MAIL_LETTERS_MAX as u64).map(|number| letter(number, vec![0; 10]));
    let taken = tries.filter(|it| post.send(1, it, BYTES_MAX).is_ok()).count();
    assert_eq!(taken, MAIL_LETTERS_MAX);
}
