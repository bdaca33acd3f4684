use std::ops::Range;
use std::sync::Arc;

use fastclip_schemas::Position;

use crate::plan::{EpochPlan, Plan, Window};

/// What one rank does in each step, from one position to another.
#[derive(Debug)]
pub(crate) struct Schedule {
    plan: Arc<Plan>,
    /// Slots of the global batch that belong to this rank.
    slots: Range<u64>,
    next: Position,
    until: Position,
    cursor: Option<Cursor>,
    /// Slots of this rank in all steps before those of the cursor.
    slots_before: u64,
    next_run: u64,
}

/// One step of one rank.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) position: Position,
    /// What fills the slots, in their order; short where the epoch has ended.
    pub(crate) uses: Vec<Use>,
    /// The runs that are used here for the first time, in the order of use.
    pub(crate) runs: Vec<RunRequest>,
}

/// A sample in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Use {
    /// Number of the run that holds it.
    pub(crate) run: u64,
    /// Number of the sample in its shard.
    pub(crate) sample: u32,
}

/// A run that this rank needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunRequest {
    /// Number of the run in this schedule, in the order of first use.
    pub(crate) run: u64,
    pub(crate) shard: usize,
    pub(crate) samples: Range<u32>,
    /// Which pass over its dataset it belongs to.
    pub(crate) pass: u64,
    pub(crate) num_uses: u32,
    /// When it is used first and last, in slots of this rank since the start of the schedule.
    pub(crate) first_use: u64,
    pub(crate) last_use: u64,
}

/// Where the schedule stands in an epoch.
#[derive(Debug)]
struct Cursor {
    epoch: Arc<EpochPlan>,
    /// Steps of this epoch that belong to the schedule.
    steps: Range<u64>,
    lanes: Vec<LaneCursor>,
}

#[derive(Debug)]
struct LaneCursor {
    lane: u64,
    /// Which of the lane's positions in each step belong to this rank.
    part: Range<u64>,
    open: Option<OpenWindow>,
}

#[derive(Debug)]
struct OpenWindow {
    window: Window,
    runs: Vec<RunUse>,
}

#[derive(Debug, Clone, Copy, Default)]
struct RunUse {
    run: Option<u64>,
    num_uses: u32,
    last_use: u64,
}

impl Schedule {
    /// All steps from one position, inclusive, to another, exclusive. Both lie within their epochs.
    pub(crate) fn new(plan: Arc<Plan>, slots: Range<u64>, from: Position, until: Position) -> Self {
        Self { plan, slots, next: from, until, cursor: None, slots_before: 0, next_run: 0 }
    }

    /// Lanes that this rank reads.
    pub(crate) fn num_lanes(&self) -> u64 {
        self.plan.layout().lanes_of(&self.slots).count() as u64
    }

    fn cursor(&self) -> Cursor {
        let Position { epoch, step } = self.next;
        let end = if epoch == self.until.epoch { self.until.step } else { self.plan.layout().num_steps() };
        let lanes = self.plan.layout().lanes_of(&self.slots);
        let lanes = lanes.map(|(lane, part)| LaneCursor { lane, part, open: None }).collect();
        Cursor { epoch: self.plan.epoch(epoch), steps: step..end, lanes }
    }

    /// Opens the window of a lane that holds `position`, and finds out how long its runs will be needed.
    fn open(&self, cursor: &Cursor, lane: &LaneCursor, position: u64) -> OpenWindow {
        let layout = self.plan.layout();
        let window = cursor.epoch.window(lane.lane, layout.window_at(lane.lane, position));
        let mut runs = vec![RunUse::default(); window.runs.len()];
        let end = window.positions.end.min(layout.delivered(lane.lane));
        // From here: earlier positions of the window belong to steps before the start of the schedule.
        for later in position..end {
            let step = later / layout.per_lane();
            if lane.part.contains(&(later % layout.per_lane())) && cursor.steps.contains(&step) {
                let run = &mut runs[window.sample(later).0];
                run.num_uses += 1;
                run.last_use = self.time(cursor, lane.lane, later);
            }
        }
        OpenWindow { window, runs }
    }

    /// When a position of a lane is used, in slots of this rank.
    fn time(&self, cursor: &Cursor, lane: u64, position: u64) -> u64 {
        let per_lane = self.plan.layout().per_lane();
        let slot = lane * per_lane + position % per_lane;
        let step = position / per_lane - cursor.steps.start;
        self.slots_before + step * (self.slots.end - self.slots.start) + slot - self.slots.start
    }

    fn fill(&mut self, cursor: &mut Cursor) -> Step {
        let layout = *self.plan.layout();
        let mut step = Step { position: self.next, uses: Vec::new(), runs: Vec::new() };
        for index in 0..cursor.lanes.len() {
            let lane = &cursor.lanes[index];
            let start = self.next.step * layout.per_lane();
            let positions = start + lane.part.start..(start + lane.part.end).min(layout.delivered(lane.lane));
            for position in positions {
                let lane = &cursor.lanes[index];
                let is_open =
                    lane.open.as_ref().is_some_and(|open| open.window.positions.contains(&position));
                if !is_open {
                    let open = self.open(cursor, lane, position);
                    cursor.lanes[index].open = Some(open);
                }
                let time = self.time(cursor, cursor.lanes[index].lane, position);
                let open = cursor.lanes[index].open.as_mut().expect("it was opened just now");
                let (index, sample) = open.window.sample(position);
                let state = &mut open.runs[index];
                let run = *state.run.get_or_insert_with(|| {
                    let run = &open.window.runs[index];
                    let number = self.next_run;
                    self.next_run += 1;
                    step.runs.push(RunRequest {
                        run: number,
                        shard: run.shard,
                        samples: self.plan.reach(run),
                        pass: run.pass,
                        num_uses: state.num_uses,
                        first_use: time,
                        last_use: state.last_use,
                    });
                    number
                });
                step.uses.push(Use { run, sample });
            }
        }
        step
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.next >= self.until {
            return None;
        }
        let mut cursor = self.cursor.take().unwrap_or_else(|| self.cursor());
        let step = self.fill(&mut cursor);
        self.next.step += 1;
        if self.next.step == self.plan.layout().num_steps() {
            let num_steps = cursor.steps.end - cursor.steps.start;
            self.slots_before += num_steps * (self.slots.end - self.slots.start);
            self.next = Position::start_of(self.next.epoch + 1);
        } else {
            self.cursor = Some(cursor);
        }
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use fastclip_schemas::{Digest, MANIFEST_FORMAT_VERSION, Manifest, SampleId, ShardEntry};
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::plan::{Part, PlanSizes, slots_of};
    use crate::{Order, Tail, World};

    /// The first half of the shards is a dataset, the rest is another one.
    fn plan(
        (shard_samples, factors): (&[u32], [f64; 2]),
        global_batch: u64,
        order: Order,
        keep: bool,
        window: u32,
    ) -> Plan {
        let shards = shard_samples.iter().enumerate().map(|(shard, &num_samples)| ShardEntry {
            name: shard.to_string(),
            index: String::new(),
            num_samples,
            num_bytes: u64::from(num_samples),
            digest: Digest([0; 32]),
            index_digest: Digest([0; 32]),
            first_sample_id: SampleId(0),
        });
        let manifest = Manifest {
            format_version: MANIFEST_FORMAT_VERSION,
            created_by: String::new(),
            num_samples: shard_samples.iter().map(|&num| u64::from(num)).sum(),
            num_sample_ids: 0,
            shards: shards.collect(),
            source: BTreeMap::new(),
        };
        let sizes = PlanSizes { segment_samples: Some(9), window_samples: Some(window) };
        let half = shard_samples.len() / 2;
        let parts = [(0..half, factors[0]), (half..shard_samples.len(), factors[1])];
        let parts = parts.map(|(shards, factor)| Part::new(&manifest, shards, factor));
        let num_samples = parts.iter().map(Part::per_epoch).sum::<u64>();
        let tail = if keep || num_samples < global_batch { Tail::Keep } else { Tail::Drop };
        Plan::mixed(&manifest, &parts, global_batch, order, tail, sizes).unwrap()
    }

    proptest! {
        #[test]
        fn resuming_anywhere_on_any_rank_repeats_and_skips_nothing(
            shards in prop::collection::vec(1_u32..120, 1..4),
            (global_batch, world_sizes) in prop::sample::select(vec![
                (1_u64, vec![1_usize]), (12, vec![1, 2, 3, 4, 6, 12]), (70, vec![1, 2, 5, 7, 10, 14, 35, 70]),
                (128, vec![1, 2, 4, 8, 64, 128]),
            ]),
            (order, factors) in prop::sample::select(vec![
                (Order::Shuffled { seed: 3 }, [1.0, 1.0]), (Order::Sequential, [1.0, 1.0]),
                (Order::Shuffled { seed: 3 }, [2.5, 0.4]), (Order::Shuffled { seed: 3 }, [0.7, 1.0]),
            ]),
            keep in any::<bool>(),
            window in 1_u32..60,
            (world, rank, start, end) in any::<(Index, Index, Index, Index)>(),
        ) {
            let plan = Arc::new(plan((&shards, factors), global_batch, order, keep, window));
            let world_size = world_sizes[world.index(world_sizes.len())];
            let world = World::new(rank.index(world_size), world_size).unwrap();
            let slots = slots_of(world, global_batch).unwrap();
            let num_steps = plan.layout().num_steps();
            let position = |number: u64| Position { epoch: number / num_steps, step: number % num_steps };
            let end = end.index(3 * num_steps as usize + 1) as u64;
            let start = start.index(end as usize + 1) as u64;

            let schedule = Schedule::new(Arc::clone(&plan), slots.clone(), position(start), position(end));
            let mut runs: HashMap<u64, (RunRequest, u32)> = HashMap::new();
            let mut last_uses = HashMap::new();
            let mut number = start;
            let epoch = Schedule::new(Arc::clone(&plan), slots.clone(), position(0), position(num_steps));
            let delivered = epoch.map(|step| step.uses.len() as u64).sum::<u64>();
            prop_assert_eq!(plan.layout().delivered_in(&slots), delivered);
            for step in schedule {
                prop_assert_eq!(step.position, position(number));
                for request in step.runs {
                    prop_assert_eq!(request.run, runs.len() as u64, "runs are numbered in order");
                    runs.insert(request.run, (request, 0));
                }
                let mut uses = step.uses.iter();
                let epoch = plan.epoch(step.position.epoch);
                for slot in slots.clone() {
                    let Some((shard, sample)) = epoch.slot(step.position.step, slot) else { continue };
                    let used = uses.next().unwrap();
                    let (request, num_uses) = runs.get_mut(&used.run).unwrap();
                    prop_assert_eq!((request.shard, used.sample), (shard, sample));
                    prop_assert!(request.samples.contains(&sample));
                    prop_assert!(request.samples.end <= shards[shard]);
                    let reach = request.samples.len() as u32;
                    prop_assert!(plan.layout().tail() == Tail::Keep || reach >= shards[shard].min(window).min(8));
                    let time = (number - start) * (slots.end - slots.start) + slot - slots.start;
                    if *num_uses == 0 {
                        prop_assert_eq!(request.first_use, time);
                    }
                    *num_uses += 1;
                    last_uses.insert(used.run, time);
                }
                prop_assert!(uses.next().is_none());
                number += 1;
            }
            prop_assert_eq!(number, end);
            for (run, (request, num_uses)) in runs {
                prop_assert_eq!(request.num_uses, num_uses, "a run is let go after its last use");
                prop_assert_eq!(request.last_use, last_uses[&run]);
            }
        }
    }
}
