//! The features of all ranks.

use fastclip_schemas::SampleId;
use tch::{Kind, Tensor};

use super::{Local, ObjectiveError};
use crate::distributed::Communicator;

/// How exactly features enter the similarities.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum FeaturePrecision {
    /// As they are.
    #[default]
    Full,
    /// Rounded to bfloat16, which halves what travels. Products and sums stay in fp32, where products of such numbers are
    /// exact; what is lost is 1/512 of each feature, at τ = 0.01 up to a fifth of exp(s/τ).
    Bf16,
}

/// Returns ids as libtorch has them, `[b]`.
pub(crate) fn id_tensor(ids: &[SampleId]) -> Tensor {
    Tensor::from_slice(&ids.iter().map(|id| id.0 as i64).collect::<Vec<_>>())
}

/// The pairs of all ranks, as constants, and which of them are this rank's.
#[derive(Debug)]
pub(super) struct World {
    /// Images and texts, `[B, d]` each.
    towers: [Tensor; 2],
    /// s of each pair, `[B]`.
    positive: Tensor,
    /// Ids, `[B]`, if they were gathered.
    ids: Option<Tensor>,
    /// B
    num_samples: i64,
    /// Row of this rank's first sample.
    first: i64,
    /// b
    num_local: i64,
}

impl World {
    /// Gathers features, and ids where `with_ids`, of all ranks in one collective.
    pub(super) fn gather(
        local: &Local<'_>,
        precision: FeaturePrecision,
        with_ids: bool,
        comm: &dyn Communicator,
    ) -> Result<Self, ObjectiveError> {
        let (kind, device) = (local.image.kind(), local.image.device());
        let (num_local, dim) = (local.image.size()[0], local.image.size()[1]);
        let travelling = match precision {
            FeaturePrecision::Full => kind,
            FeaturePrecision::Bf16 => Kind::BFloat16,
        };
        let mut parts = vec![local.image.to_kind(travelling), local.text.to_kind(travelling)];
        if with_ids {
            // The bits of the ids travel as if they were numbers of the features' kind: one collective less in every
            // step. Nothing computes with them on the way.
            let ids = match local.ids_on_device {
                Some(ids) => ids.shallow_clone(),
                None => id_tensor(local.ids).to_device(device),
            };
            parts.push(ids.view([num_local, 1]).view_dtype(travelling));
        }
        let packed = Tensor::cat(&parts, 1); // [b, 2d + columns of an id]
        let all = comm.all_gather(&packed).map_err(ObjectiveError::exchanging("features"))?; // [B, …]
        let num_samples = all.size()[0];
        if num_samples < 2 {
            return Err(ObjectiveError::Batch { num_samples });
        }
        let tower = |start| all.narrow(1, start, dim).to_kind(kind).contiguous();
        let towers = [tower(0), tower(dim)];
        let ids = with_ids.then(|| {
            let bits = all.narrow(1, 2 * dim, all.size()[1] - 2 * dim).contiguous();
            bits.view_dtype(Kind::Int64).view([num_samples])
        });
        Ok(Self {
            positive: (&towers[0] * &towers[1]).sum_dim_intlist(1i64, false, None::<Kind>),
            towers,
            ids,
            num_samples,
            first: comm.rank() as i64 * num_local,
            num_local,
        })
    }

    /// B
    pub(super) fn num_samples(&self) -> i64 {
        self.num_samples
    }

    /// b
    pub(super) fn num_local(&self) -> i64 {
        self.num_local
    }

    /// Returns the ids of all samples, `[B]`.
    pub(super) fn ids(&self) -> &Tensor {
        self.ids.as_ref().expect("objectives with estimators gather ids")
    }

    /// Returns s of all pairs, `[B]`.
    pub(super) fn positive(&self) -> &Tensor {
        &self.positive
    }

    /// Returns this rank's rows of a world tensor.
    pub(super) fn mine(&self, rows: &Tensor) -> Tensor {
        rows.narrow(0, self.first, self.num_local)
    }

    /// Returns this rank's features of a modality, 0 for images and 1 for texts, `[b, d]`.
    pub(super) fn anchors(&self, modality: usize) -> Tensor {
        self.mine(&self.towers[modality])
    }

    /// Returns what samples of a modality are contrasted with: all features of the other one, `[B, d]`.
    pub(super) fn candidates(&self, modality: usize) -> &Tensor {
        &self.towers[1 - modality]
    }

    /// Returns where each of the local rows `start..start + num_rows` of a `[num_rows, B]` block meets its own partner,
    /// as a view of `[num_rows]` into the block.
    pub(super) fn own_pairs(&self, block: &Tensor, start: i64) -> Tensor {
        let num_rows = block.size()[0];
        block.narrow(1, self.first + start, num_rows).diagonal(0, 0, 1)
    }

    /// Places this rank's rows among zeros, `[B, columns]`: its summand of a table that an all-reduce completes.
    pub(super) fn placed(&self, rows: &Tensor) -> Tensor {
        let all = rows.new_zeros([self.num_samples, rows.size()[1]], (rows.kind(), rows.device()));
        self.mine(&all).copy_(rows);
        all
    }
}
