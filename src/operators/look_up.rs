//! Looking up keys in a base's run: a join with something that does not change.

use differential_dataflow::{AsCollection, VecCollection};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::runs::{Data, Levels, Lookup};

use super::flow::{Diff, Update};

/// The base's rows of each key of a collection: a join with something that does not change.
pub(crate) fn look_up<'s, K: Data, V: Data, W: Data>(
    keyed: StreamVec<'s, u64, Update<(K, V)>>,
    base: &Levels<K, W, Diff>,
    name: &str,
) -> VecCollection<'s, u64, (K, (V, W)), Diff> {
    let mut base = Lookup::new(base);
    keyed
        .unary(Pipeline, name, move |_, _| {
            move |input, output| {
                input.for_each(|stamp, updates| {
                    let mut session = output.session(&stamp);
                    for ((key, val), time, diff) in updates.drain(..) {
                        session.give_iterator(
                            base.rows(&key).iter().map(|(row, n)| ((key.clone(), (val.clone(), row.clone())), time, diff * n)),
                        );
                    }
                });
            }
        })
        .as_collection()
}
