//! One sandbox of the fake: its tree, its state and its boots.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use agentkernel_core::{
    Capability, Enforcement, Isolation, Lifetime, Liveness, SandboxInfo, SandboxName, SandboxSpec, State,
};
use tokio::time;

use super::{
    bug::Bug,
    command::Command,
    process::{World, lock},
    tree::Tree,
};

/// A sandbox that exists.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) name: SandboxName,
    pub(super) id: String,
    pub(super) spec: SandboxSpec,
    pub(super) tree: Arc<Mutex<Tree>>,
    pub(super) leaked: Mutex<BTreeMap<String, Vec<u8>>>,
    created: u64,
    life: Mutex<Life>,
}

#[derive(Debug)]
struct Life {
    state: State,
    world: Option<Arc<World>>,
    exit_code: Option<i32>,
    main: Option<Arc<Command>>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

impl Instance {
    pub(super) fn new(name: SandboxName, id: String, spec: &SandboxSpec, tree: Tree) -> Arc<Self> {
        let life = Life { state: State::Created, world: None, exit_code: None, main: None };
        let instance = Arc::new(Self {
            name,
            id,
            spec: spec.clone(),
            tree: Arc::new(Mutex::new(tree)),
            leaked: Mutex::default(),
            created: now(),
            life: Mutex::new(life),
        });
        if let Some(time_to_live) = spec.time_to_live {
            let weak = Arc::downgrade(&instance);
            tokio::spawn(async move {
                time::sleep(time_to_live).await;
                if let Some(instance) = weak.upgrade() {
                    instance.kill();
                }
            });
        }
        instance
    }

    fn deadline(&self) -> Option<u64> {
        self.spec.time_to_live.map(|time_to_live| self.created + time_to_live.as_secs())
    }

    pub(super) fn boot(&self, bug: Option<Bug>) {
        let mut life = lock(&self.life);
        if life.state != State::Running {
            life.state = State::Running;
            life.exit_code = None;
            life.world = Some(Arc::new(World::new(Arc::clone(&self.tree), bug)));
        }
    }

    /// Returns what runs, if it runs.
    pub(super) fn world(&self) -> Option<Arc<World>> {
        lock(&self.life).world.clone()
    }

    pub(super) fn main(&self) -> Option<Arc<Command>> {
        lock(&self.life).main.clone()
    }

    pub(super) fn set_main(&self, command: &Arc<Command>) {
        lock(&self.life).main = Some(Arc::clone(command));
    }

    /// Ends everything at once; does not wait.
    pub(super) fn kill(&self) {
        let mut life = lock(&self.life);
        if let Some(world) = life.world.take() {
            world.kill_all();
            life.state = State::Stopped;
        }
    }

    /// The main command ended.
    pub(super) fn end(&self, code: i32) {
        self.kill();
        lock(&self.life).exit_code = Some(code);
    }

    /// Ends everything: politely, then by force.
    pub(super) async fn halt(&self, grace: Duration) {
        let Some(world) = self.world() else { return };
        world.processes(|_| true).iter().for_each(|process| process.signal(15));
        let _polite = time::timeout(grace, world.empty()).await;
        world.kill_all();
        world.empty().await;
        self.kill();
    }

    pub(super) fn info(&self) -> SandboxInfo {
        let life = lock(&self.life);
        let mut info = SandboxInfo::new(self.name.clone(), self.id.clone(), super::TYPE, life.state);
        info.isolation = Isolation::Process;
        info.exit_code = life.exit_code;
        info.image = self.spec.config.image.clone().unwrap_or_default();
        info.created = self.created;
        info.deadline = self.deadline();
        info.lifetime = self.spec.lifetime;
        info.owner = Some(self.spec.owner.clone());
        info.labels = self.spec.labels.clone();
        info.liveness = match self.deadline() {
            Some(deadline) if deadline <= now() => Liveness::Expired,
            _ if self.spec.lifetime == Lifetime::Detached => Liveness::Detached,
            _ => Liveness::Alive,
        };
        info.restrictions = self.restrictions();
        info
    }

    fn restrictions(&self) -> Vec<Enforcement> {
        let shown = |capability| {
            !matches!(capability, Capability::ExecUser | Capability::Files | Capability::Persistence)
        };
        let asked = self.spec.requirements.iter().filter(|asked| shown(asked.capability));
        let enforced = asked.map(|requirement| Enforcement {
            capability: requirement.capability,
            asked: requirement.asked.clone(),
            configured: if requirement.weaker { String::new() } else { requirement.asked.clone() },
            allowed_weaker: self.spec.config.allow_weaker.contains(&requirement.capability),
        });
        enforced.collect()
    }
}
