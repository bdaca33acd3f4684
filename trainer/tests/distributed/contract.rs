//! Every implementation keeps the contract.

use fastclip_testkit::free_port;
use fastclip_torch_ext::{StoreOptions, TcpStore};
use fastclip_trainer::distributed::{Alone, CommError, Communicator};
use tch::{Device, Kind, Tensor};

use crate::in_backward::{Filled, NUM_LEAVES, NUM_VALUES};
use crate::{TIMEOUT, assert_success, bytes, floats, join, outputs, rank_command, run, values};

#[test]
fn a_world_of_one_keeps_the_contract() {
    check_contract(&Alone::new());
}

#[test]
fn groups_keep_the_contract() {
    for world_size in [2, 3, 4] {
        assert_success(&run("conforms", world_size));
    }
}

pub(crate) fn conforms() {
    check_contract(&*join(TIMEOUT));
}

/// The contract of [`Communicator`], sentence by sentence.
fn check_contract(comm: &dyn Communicator) {
    let (rank, world_size) = (comm.rank(), comm.world_size());
    let ranks_sum = (1..=world_size).sum::<usize>() as f64;
    assert!(rank < world_size);

    // A sum replaces the tensor, whatever its layout and kind, and whether or not it is a parameter.
    for kind in [Kind::Float, Kind::Double, Kind::BFloat16, Kind::Int64, Kind::Int, Kind::Uint8] {
        let tensor = values(rank, &[2, 3]).to_kind(kind);
        comm.all_reduce_sum(&tensor).unwrap();
        assert_eq!(floats(&tensor), floats(&(values(0, &[2, 3]) * ranks_sum)), "{kind:?}");
    }
    let transposed = values(rank, &[2, 3]).transpose(0, 1);
    comm.all_reduce_sum(&transposed).unwrap();
    assert_eq!(floats(&transposed), floats(&(values(0, &[2, 3]).transpose(0, 1) * ranks_sum)));
    let param = values(rank, &[4]).set_requires_grad(true);
    comm.all_reduce_sum(&param).unwrap();
    assert!(param.requires_grad() && param.is_leaf());
    assert_eq!(floats(&param.detach()), floats(&(values(0, &[4]) * ranks_sum)));

    // Buckets hold the sum of all ranks after backward, and each is a collective of its own.
    let mut filled = Filled::new();
    let before = comm.counters();
    filled.reduce(comm, |_| {}).unwrap();
    for (leaf, gradient) in filled.buckets.gradients().iter().enumerate() {
        assert_eq!(floats(gradient), vec![leaf as f32 * ranks_sum as f32; NUM_VALUES as usize]);
    }
    let buckets = comm.counters().since(&before);
    assert_eq!(buckets.total().num_calls, NUM_LEAVES as u64);
    assert_eq!(buckets.all_reduce.num_calls, NUM_LEAVES as u64);

    // All ranks get the same bits, also of sums that are not exact.
    tch::manual_seed(rank as i64);
    let inexact = Tensor::randn([10_001], (Kind::Float, Device::Cpu));
    comm.all_reduce_sum(&inexact).unwrap();
    let all = comm.all_gather(&inexact).unwrap().reshape([world_size as i64, -1]);
    for other in 0..world_size as i64 {
        assert_eq!(bytes(&all.get(other)), bytes(&inexact), "rank {other}");
    }

    // Rows are gathered in the order of ranks, without gradient and in memory of their own.
    let local = values(rank, &[2, 3]).set_requires_grad(true);
    let all = comm.all_gather(&local).unwrap();
    assert_eq!(all.size(), [2 * world_size as i64, 3]);
    assert!(!all.requires_grad());
    for other in 0..world_size {
        let part = all.narrow(0, 2 * other as i64, 2);
        assert_eq!(floats(&part), floats(&values(other, &[2, 3])));
    }
    let _ = all.shallow_clone().zero_();
    assert_eq!(floats(&local.detach()), floats(&values(rank, &[2, 3])));
    let scalars = comm.all_gather(&Tensor::from(rank as i64)).unwrap();
    assert_eq!(Vec::<i64>::try_from(&scalars).unwrap(), (0..world_size as i64).collect::<Vec<_>>());
    let columns = comm.all_gather(&values(rank, &[3, 2]).transpose(0, 1)).unwrap();
    assert_eq!(floats(&columns.narrow(0, 0, 2)), floats(&values(0, &[3, 2]).transpose(0, 1)));

    // A broadcast replaces the tensor by the root's.
    for root in 0..world_size {
        let tensor = values(rank, &[5]);
        comm.broadcast(&tensor, root).unwrap();
        assert_eq!(floats(&tensor), floats(&values(root, &[5])));
    }

    // Tensors without elements pass through.
    let nothing = Tensor::zeros([0, 3], (Kind::Float, Device::Cpu));
    comm.all_reduce_sum(&nothing).unwrap();
    assert_eq!(comm.all_gather(&nothing).unwrap().size(), [0, 3]);

    // What cannot work is refused before anybody waits.
    let error = comm.broadcast(&nothing, world_size).unwrap_err();
    assert!(matches!(error, CommError::Argument { collective: "broadcast", .. }), "{error:?}");

    // Calls are counted, refused ones are not.
    comm.barrier().unwrap();
    let counters = comm.counters();
    assert_eq!(counters.all_reduce.num_calls, 10 + NUM_LEAVES as u64);
    assert_eq!(counters.broadcast.num_calls, world_size as u64);
    assert_eq!(
        counters.broadcast.num_bytes,
        (world_size - 1) as u64 * 5 * 4,
        "nothing from this rank itself"
    );
    assert_eq!(counters.barrier.num_calls, 1);
    let others = counters.all_gather.num_calls + world_size as u64 + 1;
    assert_eq!(counters.total().num_calls, counters.all_reduce.num_calls + others);
}

#[test]
fn ranks_meet_in_a_store_of_the_launcher_and_again_after_a_restart() {
    let store = TcpStore::connect(&StoreOptions {
        host: "127.0.0.1".to_owned(),
        port: 0,
        is_server: true,
        timeout: TIMEOUT,
    })
    .unwrap();
    for attempt in ["0", "1"] {
        let children = (0..2).map(|rank| {
            rank_command("conforms", rank, 2, store.port())
                .env("TORCHELASTIC_USE_AGENT_STORE", "True")
                .env("TORCHELASTIC_RESTART_COUNT", attempt)
                .spawn()
                .unwrap()
        });
        assert_success(&outputs(children.collect()));
    }
}

#[test]
fn ranks_talk_over_the_interface_that_is_named() {
    let port = free_port();
    let children = (0..2)
        .map(|rank| rank_command("conforms", rank, 2, port).env("GLOO_SOCKET_IFNAME", "lo").spawn().unwrap());
    assert_success(&outputs(children.collect()));
}
