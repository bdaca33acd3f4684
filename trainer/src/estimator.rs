//! What training remembers of each sample, dealt out over the ranks.
//!
//! A row belongs to rank `id mod world_size`, at place `id / world_size` of its shard. Nobody holds the whole table: in a
//! step the owner of a row offers its values as one summand among zeros ([`EstimatorTable::offer`]), an all-reduce that the
//! objective makes anyway brings them to all ranks, and the owner alone writes the new ones ([`EstimatorTable::store`]). The
//! alternative, a copy on every rank kept equal by writing everything everywhere, costs world size times the memory.
//!
//! Each shard has one row more than it owns. Whatever a rank must not touch is sent there, which keeps shapes free of the
//! data: no step waits for the device to count rows.

use fastclip_schemas::SampleId;
use tch::{Device, Kind, Tensor, no_grad};

/// Marks a row that no sample has written: the logarithm of an estimate of nothing.
pub const UNSEEN: f64 = f64::NEG_INFINITY;

/// How rows are dealt out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dealing {
    /// Rows of the whole table: one more than the largest id.
    pub num_ids: u64,
    /// Which shard this is.
    pub rank: usize,
    /// How many shards there are.
    pub world_size: usize,
}

impl Dealing {
    /// Returns the number of rows that this rank owns.
    pub fn num_rows(&self) -> u64 {
        let (rank, world_size) = (self.rank as u64, self.world_size as u64);
        self.num_ids.saturating_sub(rank).div_ceil(world_size)
    }

    /// Returns whether the shard of `rank` among `world_size` can hold rows of this one: an id is of both if it leaves
    /// the right remainders by both numbers of ranks, which it can if the remainders agree by what the numbers share.
    pub fn shares_rows_with(&self, rank: usize, world_size: usize) -> bool {
        let (mut shared, mut rest) = (self.world_size, world_size);
        while rest != 0 {
            (shared, rest) = (rest, shared % rest);
        }
        self.rank % shared == rank % shared
    }
}

/// One rank's shard of a table with some columns for each sample.
#[derive(Debug)]
pub struct EstimatorTable {
    dealing: Dealing,
    /// [owned rows + 1, columns]; the last row takes what is not ours. May lie in another memory than what is exchanged.
    rows: Tensor,
}

/// A table and what it was asked for do not fit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EstimatorError {
    /// A sample whose row does not exist.
    #[error("sample id {id} is out of range: the dataset's manifest says num_sample_ids = {num_ids}")]
    OutOfRange {
        /// The id.
        id: SampleId,
        /// Rows of the table.
        num_ids: u64,
    },
    /// A saved shard of another table.
    #[error("saved estimators have {found} {what}, this run has {expected}")]
    Mismatch {
        /// What is counted.
        what: &'static str,
        /// In the file.
        found: i64,
        /// In this run.
        expected: i64,
    },
}

impl EstimatorTable {
    /// Makes a shard of a table in which every row is `initial`, in the memory of `device`.
    ///
    /// Host memory holds what does not fit beside the model on a GPU. Every step then waits for the device: the ids of the
    /// batch must come to the host before their rows can be read.
    pub fn new(dealing: Dealing, initial: &[f64], kind: Kind, device: Device) -> Self {
        let num_rows = dealing.num_rows() as i64;
        let rows = Tensor::empty([num_rows + 1, initial.len() as i64], (kind, device));
        let initial = Tensor::from_slice(initial).to_kind(kind).to_device(device);
        rows.shallow_clone().copy_(&initial.expand_as(&rows));
        Self { dealing, rows }
    }

    /// Returns the bytes that this rank's shard takes.
    pub fn num_bytes(&self) -> usize {
        self.rows.numel() * self.rows.kind().elt_size_in_bytes()
    }

    /// Returns how rows are dealt out.
    pub fn dealing(&self) -> Dealing {
        self.dealing
    }

    /// Checks that every id has a row on some rank.
    ///
    /// # Errors
    /// Names the first id without one.
    pub fn check(&self, ids: &[SampleId]) -> Result<(), EstimatorError> {
        let num_ids = self.dealing.num_ids;
        match ids.iter().find(|id| id.0 >= num_ids) {
            Some(&id) => Err(EstimatorError::OutOfRange { id, num_ids }),
            None => Ok(()),
        }
    }

    /// Returns this rank's summand of the rows of `ids`, on their device: the values it owns, and zero elsewhere.
    pub fn offer(&self, ids: &Tensor) -> Tensor {
        let device = ids.device();
        let ids = ids.to_device(self.rows.device());
        let is_ours = self.is_ours(&ids);
        let values = self.rows.index_select(0, &self.places(&ids, &is_ours)); // [ids, columns]
        // Not a multiplication: unseen rows are infinite, and 0·∞ is no zero.
        values.where_self(&is_ours.unsqueeze(1), &values.zeros_like()).to_device(device)
    }

    /// Writes the rows of `ids` that this rank owns.
    ///
    /// An id that occurs twice keeps its last value, in the order of `ids`, on any device and at any timing. A row that holds
    /// no number, or +∞, is not written: what a broken batch would leave behind, no later one could make good.
    pub fn store(&mut self, ids: &Tensor, values: &Tensor) {
        let ids = ids.to_device(self.rows.device());
        // Of equal ids, stable sorting leaves the last one last; all others lose their right to write.
        let (sorted, order) = ids.sort_stable(true, 0, false);
        let num_ids = ids.size()[0];
        let is_last = Tensor::ones([num_ids], (Kind::Bool, ids.device()));
        if num_ids > 1 {
            let differs =
                sorted.narrow(0, 0, num_ids - 1).not_equal_tensor(&sorted.narrow(0, 1, num_ids - 1));
            is_last.narrow(0, 0, num_ids - 1).copy_(&differs);
        }
        let writes = self.is_ours(&sorted).logical_and(&is_last);
        let places = self.places(&sorted, &writes);
        let values = values.to_device(self.rows.device()).index_select(0, &order).to_kind(self.rows.kind());
        no_grad(|| {
            let is_broken = values.isnan().logical_or(&values.isposinf()).any_dim(1, true);
            let values = self.rows.index_select(0, &places).where_self(&is_broken, &values);
            let _ = self.rows.index_copy_(0, &places, &values);
        });
    }

    fn is_ours(&self, ids: &Tensor) -> Tensor {
        ids.remainder(self.dealing.world_size as i64).eq(self.dealing.rank as i64)
    }

    /// Where the chosen ids lie in this shard; the row that nobody owns for the others.
    fn places(&self, ids: &Tensor, chosen: &Tensor) -> Tensor {
        let places = ids.divide_scalar_mode(self.dealing.world_size as i64, "floor");
        let elsewhere = places.full_like(self.dealing.num_rows() as i64);
        places.where_self(chosen, &elsewhere)
    }

    /// Returns the owned rows, [owned rows, columns], for a checkpoint.
    pub fn owned(&self) -> Tensor {
        self.rows.narrow(0, 0, self.dealing.num_rows() as i64)
    }

    /// Returns ln u of the samples that this rank owns, [owned rows, 2]; −∞ where one has not been met.
    pub fn log_u(&self) -> Tensor {
        // All tables begin with these two columns.
        self.owned().narrow(1, 0, 2)
    }

    /// Takes over, from a saved shard, the rows that belong here now; the shard may come from a world of another size.
    ///
    /// # Errors
    /// When the shard is not one of a table like this.
    pub fn adopt(&mut self, saved: &Tensor, from: Dealing) -> Result<(), EstimatorError> {
        let mismatch = |what, found, expected| Err(EstimatorError::Mismatch { what, found, expected });
        if from.num_ids != self.dealing.num_ids {
            return mismatch("sample ids", from.num_ids as i64, self.dealing.num_ids as i64);
        }
        if saved.size() != [from.num_rows() as i64, self.rows.size()[1]] {
            let found = *saved.size().last().unwrap_or(&0);
            if found != self.rows.size()[1] {
                return mismatch("columns", found, self.rows.size()[1]);
            }
            return mismatch("rows in a shard", saved.size()[0], from.num_rows() as i64);
        }
        let places = Tensor::arange(from.num_rows() as i64, (Kind::Int64, saved.device()));
        let ids = places * from.world_size as i64 + from.rank as i64;
        self.store(&ids, saved);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(num_ids: u64, rank: usize, world_size: usize) -> EstimatorTable {
        EstimatorTable::new(Dealing { num_ids, rank, world_size }, &[UNSEEN; 2], Kind::Double, Device::Cpu)
    }

    /// The tables of a whole world, and the sum of what they offer.
    fn world(num_ids: u64, world_size: usize) -> Vec<EstimatorTable> {
        (0..world_size).map(|rank| table(num_ids, rank, world_size)).collect()
    }

    fn read(tables: &[EstimatorTable], ids: &Tensor) -> Vec<Vec<f64>> {
        let sum = tables.iter().map(|table| table.offer(ids)).reduce(|sum, offer| sum + offer).unwrap();
        Vec::<Vec<f64>>::try_from(sum).unwrap()
    }

    fn pairs(values: &[f64]) -> Tensor {
        Tensor::stack(&[Tensor::from_slice(values), -Tensor::from_slice(values)], 1)
    }

    #[test]
    fn a_row_that_holds_no_number_is_not_written() {
        let mut table = table(3, 0, 1);
        let all = Tensor::from_slice(&[0i64, 1, 2]);
        table.store(&all, &pairs(&[1.0, 2.0, 3.0]));
        table.store(&all, &pairs(&[f64::NAN, f64::INFINITY, 4.0]));
        assert_eq!(read(&[table], &all), [[1.0, -1.0], [2.0, -2.0], [4.0, -4.0]]);
    }

    #[test]
    fn ranks_own_every_row_once() {
        for world_size in 1..5 {
            for num_ids in [0, 1, 2, 7, 8] {
                let rows = (0..world_size).map(|rank| Dealing { num_ids, rank, world_size }.num_rows());
                assert_eq!(rows.sum::<u64>(), num_ids, "{num_ids} ids over {world_size} ranks");
            }
        }
    }

    #[test]
    fn what_was_stored_is_read_whatever_the_number_of_ranks() {
        for world_size in [1, 2, 3, 5] {
            let mut tables = world(11, world_size);
            let ids = Tensor::from_slice(&[10i64, 3, 0, 7]);
            for table in &mut tables {
                table.store(&ids, &pairs(&[1.0, 2.0, 3.0, 4.0]));
            }
            let found = read(&tables, &Tensor::from_slice(&[7i64, 10, 1]));
            assert_eq!(found[0], [4.0, -4.0]);
            assert_eq!(found[1], [1.0, -1.0]);
            assert_eq!(found[2], [UNSEEN, UNSEEN], "row 1 was never written");
        }
    }

    #[test]
    fn of_an_id_that_occurs_twice_the_last_value_stays() {
        for world_size in [1, 2] {
            let mut tables = world(6, world_size);
            let ids = Tensor::from_slice(&[4i64, 5, 4, 1, 4]);
            for table in &mut tables {
                table.store(&ids, &pairs(&[1.0, 2.0, 3.0, 4.0, 5.0]));
            }
            let found = read(&tables, &Tensor::from_slice(&[4i64, 5, 1]));
            assert_eq!(found, [[5.0, -5.0], [2.0, -2.0], [4.0, -4.0]]);
        }
    }

    #[test]
    fn shards_of_one_world_restore_a_world_of_another_size() {
        let ids: Vec<i64> = (0..10).filter(|id| id % 3 != 1).collect();
        let values: Vec<f64> = ids.iter().map(|&id| id as f64 + 0.5).collect();
        for (from, to) in [(1, 4), (4, 2), (2, 3), (3, 1), (4, 4), (6, 4)] {
            let mut old = world(10, from);
            for table in &mut old {
                table.store(&Tensor::from_slice(&ids), &pairs(&values));
            }
            let mut new = world(10, to);
            for table in &mut new {
                let dealing = table.dealing();
                for shard in old.iter().filter(|shard| dealing.shares_rows_with(shard.dealing().rank, from)) {
                    table.adopt(&shard.owned(), shard.dealing()).unwrap();
                }
            }
            let all = Tensor::arange(10, (Kind::Int64, Device::Cpu));
            assert_eq!(read(&old, &all), read(&new, &all), "from {from} ranks to {to}");
        }
    }

    #[test]
    fn an_id_without_a_row_is_refused_with_both_numbers() {
        let message = table(5, 0, 1).check(&[SampleId(4), SampleId(5)]).unwrap_err().to_string();
        assert!(message.contains("id 5") && message.contains("num_sample_ids = 5"), "{message}");
    }

    #[test]
    fn a_shard_of_another_table_is_refused() {
        let error = table(5, 0, 1).adopt(&table(6, 0, 1).owned(), table(6, 0, 1).dealing()).unwrap_err();
        assert_eq!(error.to_string(), "saved estimators have 6 sample ids, this run has 5");
    }
}
