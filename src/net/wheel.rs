//! A hashed timer wheel without I/O: ticks in, wakers out.
//!
//! Alarms are made once per stream and then only moved. Arming a later deadline than the one an
//! alarm is queued for stores the deadline and nothing else: the alarm is found at its old place
//! and put where it belongs then. So a request that sets and clears four deadlines touches no list.

use std::task::Waker;

/// A tick that never comes: the alarm is not armed.
pub(super) const NEVER: u64 = u64::MAX;

/// Alarms of one core. Lists are doubly linked through `alarms` by index.
pub(super) struct Wheel {
    /// First alarm of each slot; the slot of tick `t` is `t % SLOTS`.
    slots: Vec<u32>,
    alarms: Vec<Alarm>,
    /// First unused alarm; they are linked through `next`.
    unused: u32,
    /// Every tick up to this one has been handled.
    tick: u64,
}

struct Alarm {
    next: u32,
    previous: u32,
    /// The slot whose list this is in, or `NONE`.
    slot: u32,
    /// The tick it is queued for.
    queued: u64,
    /// The tick it is to ring at, or `NEVER`.
    due: u64,
    rang: bool,
    waker: Option<Waker>,
}

impl Wheel {
    /// An empty wheel whose next tick is 1.
    pub(super) fn new() -> Self {
        Self { slots: vec![NONE; SLOTS], alarms: Vec::new(), unused: NONE, tick: 0 }
    }

    /// Makes an alarm that is not armed.
    pub(super) fn create(&mut self) -> u32 {
        let index = self.unused;
        if let Some(alarm) = self.alarms.get_mut(index as usize) {
            self.unused = alarm.next;
            *alarm = Alarm::idle();
            return index;
        }
        self.alarms.push(Alarm::idle());
        (self.alarms.len() - 1) as u32
    }

    /// Gives an alarm back.
    pub(super) fn remove(&mut self, index: u32) {
        self.unlink(index);
        let unused = self.unused;
        if let Some(alarm) = self.alarms.get_mut(index as usize) {
            *alarm = Alarm::idle();
            alarm.next = unused;
            self.unused = index;
        }
    }

    /// Lets the alarm ring at `due`; a tick that has passed means the next one.
    pub(super) fn arm(&mut self, index: u32, due: u64) {
        let due = due.max(self.tick.saturating_add(1));
        let Some(alarm) = self.alarms.get_mut(index as usize) else { return };
        alarm.due = due;
        alarm.rang = false;
        let waits = alarm.slot != NONE && alarm.queued <= due;
        if due != NEVER && !waits {
            self.unlink(index);
            self.link(index, due);
        }
    }

    /// The alarm will not ring; its waker stays for the next use by the same task.
    pub(super) fn disarm(&mut self, index: u32) {
        if let Some(alarm) = self.alarms.get_mut(index as usize) {
            alarm.due = NEVER;
            alarm.rang = false;
        }
    }

    /// Forgets the task that last waited, so that a parked stream does not keep it in memory.
    pub(super) fn forget_waker(&mut self, index: u32) {
        if let Some(alarm) = self.alarms.get_mut(index as usize) {
            alarm.waker = None;
        }
    }

    /// True once the alarm has rung; else `waker` is called when it does.
    pub(super) fn rang(&mut self, index: u32, waker: &Waker) -> bool {
        let Some(alarm) = self.alarms.get_mut(index as usize) else { return true };
        if !alarm.rang {
            match &mut alarm.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
        alarm.rang
    }

    /// Handles every tick up to and including `tick`; wakers to call are added to `ringing`.
    pub(super) fn advance(&mut self, tick: u64, ringing: &mut Vec<Waker>) {
        // After a long stall one round over the slots meets every alarm.
        let first = self.tick.saturating_add(1).max(tick.saturating_sub(SLOTS as u64 - 1));
        for now in first..=tick {
            self.tick = now;
            self.visit((now % SLOTS as u64) as u32, tick, ringing);
        }
        self.tick = self.tick.max(tick);
    }

    /// Adds the wakers of all who wait; no alarm rings by it.
    pub(super) fn wake_all(&mut self, waking: &mut Vec<Waker>) {
        waking.extend(self.alarms.iter().filter_map(|alarm| alarm.waker.clone()));
    }

    fn visit(&mut self, slot: u32, tick: u64, ringing: &mut Vec<Waker>) {
        // Alarms that are linked again go to the front, behind this walk.
        let mut index = self.slots.get(slot as usize).copied().unwrap_or(NONE);
        while let Some(alarm) = self.alarms.get_mut(index as usize) {
            let (next, due) = (alarm.next, alarm.due);
            if due <= tick {
                alarm.rang = true;
                alarm.due = NEVER;
                ringing.extend(alarm.waker.take());
            }
            self.unlink(index);
            if due > tick && due != NEVER {
                self.link(index, due);
            }
            index = next;
        }
    }

    fn link(&mut self, index: u32, due: u64) {
        let slot = (due % SLOTS as u64) as u32;
        let Some(head) = self.slots.get_mut(slot as usize) else { return };
        let old = std::mem::replace(head, index);
        if let Some(alarm) = self.alarms.get_mut(index as usize) {
            alarm.next = old;
            alarm.previous = NONE;
            alarm.slot = slot;
            alarm.queued = due;
        }
        if let Some(behind) = self.alarms.get_mut(old as usize) {
            behind.previous = index;
        }
    }

    fn unlink(&mut self, index: u32) {
        let Some(alarm) = self.alarms.get_mut(index as usize) else { return };
        let (next, previous) = (alarm.next, alarm.previous);
        let slot = std::mem::replace(&mut alarm.slot, NONE);
        if slot == NONE {
            return;
        }
        alarm.next = NONE;
        alarm.previous = NONE;
        if let Some(after) = self.alarms.get_mut(next as usize) {
            after.previous = previous;
        }
        if let Some(before) = self.alarms.get_mut(previous as usize) {
            before.next = next;
        } else if let Some(head) = self.slots.get_mut(slot as usize) {
            *head = next;
        }
    }
}

impl Alarm {
    const fn idle() -> Self {
        Self {
            next: NONE,
            previous: NONE,
            slot: NONE,
            queued: 0,
            due: NEVER,
            rang: false,
            waker: None,
        }
    }
}

/// No alarm, no slot.
const NONE: u32 = u32::MAX;
/// Slots of a round. At 10 ms a tick a round takes 41 s, so a common deadline is visited once.
const SLOTS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn linked(wheel: &Wheel) -> usize {
        wheel.alarms.iter().filter(|alarm| alarm.slot != NONE).count()
    }

    fn turn(wheel: &mut Wheel, tick: u64) {
        let mut ringing = Vec::new();
        wheel.advance(tick, &mut ringing);
        ringing.into_iter().for_each(Waker::wake);
    }

    #[test]
    fn rings_at_its_tick_and_not_before() {
        for due in [1, 2, 4095, 4096, 4097, 9000] {
            let mut wheel = Wheel::new();
            let count = Arc::new(Count(AtomicUsize::new(0)));
            let waker = Waker::from(Arc::clone(&count));
            let alarm = wheel.create();
            wheel.arm(alarm, due);
            assert!(!wheel.rang(alarm, &waker));
            for tick in 1..due {
                turn(&mut wheel, tick);
                assert!(!wheel.rang(alarm, &waker), "due {due} rang at {tick}");
            }
            turn(&mut wheel, due);
            assert!(wheel.rang(alarm, &waker));
            assert_eq!(count.0.load(Ordering::Relaxed), 1);
            assert_eq!(linked(&wheel), 0);
        }
    }

    #[test]
    fn a_later_deadline_moves_nothing_and_an_earlier_one_is_met() {
        let mut wheel = Wheel::new();
        let alarm = wheel.create();
        wheel.arm(alarm, 10);
        wheel.arm(alarm, 5000);
        turn(&mut wheel, 10);
        assert!(!wheel.rang(alarm, Waker::noop()));
        wheel.arm(alarm, 12);
        turn(&mut wheel, 12);
        assert!(wheel.rang(alarm, Waker::noop()));
    }

    #[test]
    fn a_disarmed_alarm_leaves_the_wheel_silently() {
        let mut wheel = Wheel::new();
        let alarm = wheel.create();
        wheel.arm(alarm, 3);
        wheel.disarm(alarm);
        turn(&mut wheel, 3);
        assert!(!wheel.rang(alarm, Waker::noop()));
        assert_eq!(linked(&wheel), 0);
        wheel.arm(alarm, 2);
        turn(&mut wheel, 4);
        assert!(wheel.rang(alarm, Waker::noop()), "a passed tick means the next one");
    }

    #[test]
    fn a_stall_of_any_length_misses_nobody() {
        let mut wheel = Wheel::new();
        let alarms: Vec<_> = (1..=9000).map(|due| (wheel.create(), due)).collect();
        for (alarm, due) in &alarms {
            wheel.arm(*alarm, *due);
        }
        turn(&mut wheel, 8000);
        for (alarm, due) in &alarms {
            assert_eq!(wheel.rang(*alarm, Waker::noop()), *due <= 8000);
        }
        assert_eq!(linked(&wheel), 1000);
    }

    /// Random use against a plain list of deadlines.
    #[test]
    fn agrees_with_a_list_under_random_use() {
        let mut wheel = Wheel::new();
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        let mut model: Vec<Option<(u32, u64)>> =
            (0..200).map(|_| Some((wheel.create(), NEVER))).collect();
        let mut tick = 0;
        for _ in 0..20_000 {
            let place = random(200) as usize;
            match (random(5), model[place]) {
                (0, Some((alarm, _))) => {
                    wheel.remove(alarm);
                    model[place] = None;
                }
                (0, None) => model[place] = Some((wheel.create(), NEVER)),
                (1, Some((alarm, _))) => {
                    wheel.disarm(alarm);
                    model[place] = Some((alarm, NEVER));
                }
                (2 | 3, Some((alarm, _))) => {
                    let due = tick + 1 + random(9000);
                    wheel.arm(alarm, due);
                    model[place] = Some((alarm, due));
                }
                _ => {
                    tick += random(40);
                    turn(&mut wheel, tick);
                    for (alarm, due) in model.iter_mut().flatten() {
                        let rang = wheel.rang(*alarm, Waker::noop());
                        assert_eq!(rang, *due <= tick && *due != NEVER);
                        if rang {
                            wheel.disarm(*alarm);
                            *due = NEVER;
                        }
                    }
                }
            }
        }
        assert!(wheel.alarms.len() <= 200, "given back alarms are used again");
    }
}
