//! A reload: the new configuration whole, or the old one as it was.

use std::rc::Rc;
use std::sync::Arc;

use super::assemble::Assembly;
use super::control::Control;
use super::state::needs_restart;
use super::{notify, refresh};
use crate::config::Config;

impl Control {
    /// All or nothing: on any fault the old configuration stays.
    pub(super) fn reload(self: &Rc<Self>) {
        if let Some(writer) = self.writer.borrow().as_ref() {
            writer.reopen();
        }
        let (path, epoch) = {
            let state = self.state.borrow();
            (state.config.path.clone(), state.assembly.policy.epoch() + 1)
        };
        notify::say("RELOADING=1");
        let made = Config::load(&path)
            .map_err(|faults| super::lines(&faults))
            .and_then(|config| self.prepare(config, epoch));
        match made {
            Ok((config, assembly)) => self.take(config, assembly),
            Err(faults) => {
                for fault in &faults {
                    tracing::error!("{fault}");
                }
                self.process.set_reload(false);
                tracing::error!(
                    faults = faults.len(),
                    "reload refused; the old configuration stays"
                );
            }
        }
        notify::say("READY=1");
    }

    /// A configuration that would need other sockets is refused whole: half of it in force, say
    /// plain HTTP for a loopback address on a listener that is still public, would be a hole.
    fn prepare(&self, mut config: Config, epoch: u64) -> Result<(Config, Assembly), Vec<String>> {
        let old = Arc::clone(&self.state.borrow().config);
        if needs_restart(&old, &config) {
            let path = config.path.display();
            return Err(vec![format!(
                "{path}: [listen] address, tls, proxy and trusted_proxies, [cores], [audit], \
                 [admin] and [limits] upstream_idle_per_core_max change only with a restart"
            )]);
        }
        config.bound(self.address);
        let assembly = Assembly::make(&config, epoch, &self.ticketer)?;
        Ok((config, assembly))
    }

    fn take(self: &Rc<Self>, config: Config, assembly: Assembly) {
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        for warning in assembly.policy.warnings() {
            tracing::warn!("{warning}");
        }
        let epoch = assembly.policy.epoch();
        self.state.borrow_mut().adopt(config, assembly);
        // The tasks of the old configuration look at once, and end.
        self.asked.ring();
        self.process.set_reload(true);
        self.process.set_policy_epoch(epoch);
        refresh::start(self, None);
        self.publish();
        tracing::info!(epoch, "configuration reloaded");
    }
}
