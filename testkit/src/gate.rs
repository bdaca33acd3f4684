use std::sync::Arc;

use tokio::sync::watch;

/// Holds requests until a test lets them go, and tells the test that one has come.
///
/// It takes the place of a delay: a test that waits for time is slow on every machine and still wrong on
/// some.
#[derive(Debug, Clone)]
pub struct Gate {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Default)]
struct State {
    num_arrived: usize,
    is_open: bool,
}

impl Gate {
    /// A gate that holds whoever comes.
    pub fn closed() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }

    /// Lets everybody pass, now and later.
    pub fn open(&self) {
        self.state.send_modify(|state| state.is_open = true);
    }

    /// Waits until somebody has come to the gate.
    pub async fn reached(&self) {
        self.reached_by(1).await;
    }

    /// Waits until so many have come to the gate.
    pub async fn reached_by(&self, count: usize) {
        let mut state = self.state.subscribe();
        state.wait_for(|state| state.num_arrived >= count).await.expect("the gate holds the sender");
    }

    /// Comes to the gate and waits until it is open.
    pub(crate) async fn pass(&self) {
        let mut state = self.state.subscribe();
        self.state.send_modify(|state| state.num_arrived += 1);
        state.wait_for(|state| state.is_open).await.expect("the gate holds the sender");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_gate_holds_until_it_is_opened() {
        let gate = Gate::closed();
        let passing = tokio::spawn({
            let gate = gate.clone();
            async move { gate.pass().await }
        });
        gate.reached().await;
        assert!(!passing.is_finished());
        gate.open();
        passing.await.unwrap();
        gate.pass().await;
    }
}
