//! Bringing in the base's rows of the keys that changes touch.
//!
//! A key's rows enter at the least tick at which the key is touched. Touches may arrive out of order; an earlier one moves
//! the entry: it is retracted at the later tick and made again at the earlier.
//!
//! The set of touched keys is kept by itself: a key can be touched and then vanish from every arrangement, when a
//! retraction cancels it, and its base rows must still be accounted for.

use std::cell::RefCell;
use std::rc::Rc;

use differential_dataflow::{AsCollection, VecCollection};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::runs::{Data, Levels, Lookup};

use super::flow::{Diff, Table, Update, table};

/// Keys touched since the base, and when first.
pub(crate) type Touched<K> = Rc<RefCell<Table<K, u64>>>;

/// The first touches of keys: `(key, t, +1)`, moved when an earlier one arrives. Updates must be placed by key.
pub(crate) fn first_touches<'s, K: Data, V: Data>(
    placed: StreamVec<'s, u64, Update<(K, V)>>,
) -> (VecCollection<'s, u64, K, Diff>, Touched<K>) {
    let touched: Touched<K> = Rc::new(RefCell::new(table()));
    let seen = Rc::clone(&touched);
    let touches = placed.unary(Pipeline, "FirstTouch", move |_, _| {
        move |input, output| {
            let mut seen = seen.borrow_mut();
            input.for_each(|stamp, updates| {
                let mut session = output.session(&stamp);
                for ((key, _), time, _) in updates.drain(..) {
                    match seen.get_mut(&key) {
                        None => {
                            seen.insert(key.clone(), time);
                            session.give((key, time, 1));
                        }
                        Some(first) if time < *first => {
                            session.give((key.clone(), time, 1));
                            session.give((key, *first, -1));
                            *first = time;
                        }
                        Some(_) => {}
                    }
                }
            });
        }
    });
    (touches.as_collection(), touched)
}

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
