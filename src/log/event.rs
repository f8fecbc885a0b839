//! What a log holds: values of one author's type, known by name, version and fields.
use super::block::Rows;
use super::frame::Header;
use crate::storage::Bytes;
use columnar::Columnar;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::sync::Arc;

/// An event type. Rows read from the log are borrowed: `columnar::Ref<'_, E>`.
///
/// `NAME`, `VERSION` and `FIELDS` are written into the log when it is created, and compared when it is opened:
/// the bytes of a block carry no types of their own. When the fields change, raise `VERSION`, keep the old type, and say how the
/// new one is made from it ([`Event::earlier`]); logs of the old type then open with the new one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "not an event",
    note = "an event derives `Clone, Debug, Serialize, Deserialize, Columnar` and names itself: `impl Event for {Self} {{ const NAME .. const VERSION .. const FIELDS .. }}`"
)]
pub trait Event: Columnar<Container: Send + Sync> + Clone + Send + Sync + std::fmt::Debug + Serialize + DeserializeOwned + 'static {
    /// The name of the type, the same in every program that reads the log.
    const NAME: &'static str;
    /// Raised when the fields change.
    const VERSION: u32;
    /// The fields in order, as `name: type`.
    const FIELDS: &'static [&'static str];

    /// The types that this one took the place of. Their events are converted when they are read, one by one and each time: a
    /// replay of older blocks costs a conversion per event, where others are read in place. New events are stored in this
    /// type, both in one log. [`rewrite`](super::rewrite) converts the older ones once for all.
    ///
    /// ```
    /// use lambdaflow::log::{Earlier, Event};
    /// # use serde::{Serialize, Deserialize};
    /// # use columnar::Columnar;
    ///
    /// #[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
    /// struct VisitV1 { path: String }
    /// # impl Event for VisitV1 {
    /// #     const NAME: &'static str = "visit";
    /// #     const VERSION: u32 = 1;
    /// #     const FIELDS: &'static [&'static str] = &["path: String"];
    /// # }
    ///
    /// #[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
    /// struct Visit { path: String, millis: u64 }
    /// impl From<VisitV1> for Visit {
    ///     fn from(old: VisitV1) -> Self { Visit { path: old.path, millis: 0 } }
    /// }
    /// impl Event for Visit {
    ///     const NAME: &'static str = "visit";
    ///     const VERSION: u32 = 2;
    ///     const FIELDS: &'static [&'static str] = &["path: String", "millis: u64"];
    ///     fn earlier() -> Earlier<Self> { Earlier::of::<VisitV1>() }
    /// }
    /// ```
    fn earlier() -> Earlier<Self> {
        Earlier::none()
    }
}

/// Reads a body as rows.
type Decode<E> = Arc<dyn Fn(&Header, Bytes) -> Result<Rows<E>, String> + Send + Sync>;

/// The types that `E` took the place of, with those that they took the place of in turn.
pub struct Earlier<E: Event>(Vec<(EventType, Decode<E>)>);

impl<E: Event> Earlier<E> {
    /// No other type.
    pub fn none() -> Self {
        Earlier(Vec::new())
    }

    /// `Old`, and what `Old` took the place of. Both have one `NAME`; the compiler sees to it.
    pub fn of<Old: Event>() -> Self
    where
        E: From<Old>,
    {
        Self::none().and::<Old>()
    }

    /// And `Old`, and what `Old` took the place of.
    pub fn and<Old: Event>(mut self) -> Self
    where
        E: From<Old>,
    {
        const { assert!(same(Old::NAME, E::NAME), "a type and the one that took its place have one NAME") };
        let of_old = std::iter::once((EventType::of::<Old>(), Arc::new(Rows::<Old>::decode) as Decode<Old>));
        for (event, decode) in of_old.chain(Old::earlier().0) {
            let converted: Decode<E> = Arc::new(move |header, body| {
                let rows = decode(header, body)?;
                // The conversion is the author's code.
                let convert = std::panic::AssertUnwindSafe(|| rows.convert::<E>());
                let what = || format!("converting its events from {} v{} to v{} panicked", E::NAME, Old::VERSION, E::VERSION);
                std::panic::catch_unwind(convert).map_err(|_| what())
            });
            if !self.0.iter().any(|(known, _)| *known == event) {
                self.0.push((event, converted));
            }
        }
        self
    }
}

const fn same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut place = 0;
    while place < one.len() && place < other.len() && one[place] == other[place] {
        place += 1;
    }
    place == one.len() && place == other.len()
}

/// How the blocks of a log are read as `E`, by the number of their type.
pub(crate) struct Types<E: Event> {
    decode: Vec<Decode<E>>,
    /// The number of `E` itself, under which it is written.
    pub own: u16,
}

impl<E: Event> Types<E> {
    /// How to read blocks of these types, `E` among them or to be added after the last; the type that is unknown otherwise.
    pub fn of(stored: &[EventType]) -> Result<Self, EventType> {
        let own = EventType::of::<E>();
        let earlier = E::earlier().0;
        let of_own = || Arc::new(Rows::<E>::decode) as Decode<E>;
        let find = |event: &EventType| {
            let earlier = || earlier.iter().find(|(known, _)| known == event).map(|(_, decode)| Arc::clone(decode));
            if *event == own { Some(of_own()) } else { earlier() }
        };
        let mut decode = stored.iter().map(|event| find(event).ok_or_else(|| event.clone())).collect::<Result<Vec<_>, _>>()?;
        let number = stored.iter().position(|event| *event == own).unwrap_or_else(|| {
            decode.push(of_own());
            stored.len()
        });
        Ok(Types { decode, own: number as u16 })
    }

    /// How to read blocks of a log that lost the list of its types, of which `highest` is the highest number that was found:
    /// of `E`, and of all earlier types if there are as many as it takes, in the order of their versions. Whether there are.
    pub fn guess(highest: u16) -> (Self, bool) {
        let mut earlier = E::earlier().0;
        let all = earlier.len() == usize::from(highest);
        earlier.sort_by_key(|(event, _)| event.version);
        let unknown = |number| -> Decode<E> {
            Arc::new(move |_, _| Err(format!("of event type number {number}, and log.json does not say which that is")))
        };
        let earlier = |number| if all { Arc::clone(&earlier[usize::from(number)].1) } else { unknown(number) };
        let own = Arc::new(Rows::<E>::decode) as Decode<E>;
        (Types { decode: (0..highest).map(earlier).chain([own]).collect(), own: highest }, all)
    }

    /// Reads a body, converting it when it is of an earlier type.
    pub fn rows(&self, header: &Header, body: Bytes) -> Result<Rows<E>, String> {
        let decode = self.decode.get(usize::from(header.event_type));
        decode.ok_or_else(|| format!("event type number {}, of {} in log.json", header.event_type, self.decode.len()))?(header, body)
    }
}

/// The description of an event type, as a log stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventType {
    /// [`Event::NAME`].
    pub name: String,
    /// [`Event::VERSION`].
    pub version: u32,
    /// [`Event::FIELDS`].
    pub fields: Vec<String>,
    /// 64-bit hash of the three, for a quick comparison.
    pub fingerprint: String,
}

impl EventType {
    /// The description of `E`.
    pub fn of<E: Event>() -> Self {
        let fields: Vec<String> = E::FIELDS.iter().map(|field| field.to_string()).collect();
        let described = format!("{}\n{}\n{}", E::NAME, E::VERSION, fields.join("\n"));
        EventType { name: E::NAME.to_string(), version: E::VERSION, fields, fingerprint: format!("{:016x}", fnv1a(described.as_bytes())) }
    }
}

impl std::fmt::Display for EventType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} v{} ({})", self.name, self.version, self.fields.join(", "))
    }
}

/// FNV-1a, 64 bit (Fowler, Noll, Vo): stable for ever, which `std`'s hashers do not promise.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
