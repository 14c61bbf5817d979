//! Pages of lists and of delta rounds.

use serde_json::{Map, Value, json};

use crate::delta::{self, Stand, Token};
use crate::http::{Answer, Call, Refusal, Reply, refuse};
use crate::workloads::objects::{Change, Object, Objects};

/// Answers with one object.
pub(crate) fn one(status: u16, value: &Value) -> Answer {
    let body = value.to_string().into_bytes();
    Ok(if status == 201 { Reply::Created(body) } else { Reply::Json(status, body) })
}

/// One page of a list; `write` makes an entry of what is listed.
pub(crate) fn list<K>(call: &Call, context: &str, all: &[K], write: impl Fn(&K) -> Value) -> Answer {
    let bad = |text: String| refuse(400, "BadRequest", text);
    refuse_any(call, &["$orderby", "$search"])?;
    let size = call.size()?;
    let skip = call.query.number("$skip").map_err(bad)?.unwrap_or(0);
    let shown: Vec<Value> = all.iter().skip(skip).take(size).map(write).collect();
    let next = skip.saturating_add(shown.len());
    let mut page = opened(call, context, shown);
    if next < all.len() {
        let mut query = call.query.without(&["$skip"]);
        query.0.push(("$skip".into(), next.to_string()));
        page.insert("@odata.nextLink".into(), call.link(&query).into());
    }
    one(200, &Value::Object(page))
}

fn opened(call: &Call, context: &str, entries: Vec<Value>) -> Map<String, Value> {
    let context = format!("{}/v1.0/$metadata#{context}", call.base);
    Map::from_iter([("@odata.context".to_owned(), context.into()), ("value".to_owned(), entries.into())])
}

/// What a delta round is about.
pub(crate) struct Round<'a, T> {
    pub objects: &'a Objects<T>,
    pub stand: Stand,
    /// One place, or all of them.
    pub place: Option<u64>,
    /// The name of the collection in tokens.
    pub collection: String,
    /// The type of its entries, without `microsoft.graph.`.
    pub type_name: &'static str,
}

impl<T> Round<'_, T> {
    /// One page. `write` shows an object by the options of the round's first call; `id` names one that is gone.
    pub(crate) fn page(
        &self,
        call: &Call,
        write: impl Fn(&Object<T>, &Token) -> Result<Value, Refusal>,
        id: impl Fn(u64, u32) -> String,
    ) -> Answer {
        refuse_options(call)?;
        let size = call.size()?;
        let mut token = delta::resume(call, self.stand, &self.collection)?;
        let (changes, more) = delta::disturbed(
            call,
            || self.objects.changes(self.place, &mut token, size),
            |change| matches!(change, Change::Present(_)),
            |key| Change::Removed(key, 0),
        );
        let mut lines = Vec::with_capacity(changes.len());
        for change in changes {
            match change {
                Change::Present(key) => {
                    let Some(object) = self.objects.get(key) else { continue };
                    lines.push(typed(write(object, &token)?, self.type_name));
                }
                Change::Removed(key, moves) => lines.push(removed(&id(key, moves), self.type_name)),
            }
        }
        answer(call, &format!("Collection({})", self.type_name), lines, &token, more)
    }
}

/// Delta takes `$select` and page sizes, nothing else.
pub(crate) fn refuse_options(call: &Call) -> Result<(), Refusal> {
    refuse_any(call, &["$filter", "$search", "$orderby", "$expand"])
}

/// Refuses options that would be ignored otherwise.
pub(crate) fn refuse_any(call: &Call, names: &[&str]) -> Result<(), Refusal> {
    match names.iter().find(|name| call.query.get(name).is_some()) {
        None => Ok(()),
        Some(name) => {
            Err(refuse(400, "BadRequest", format!("{name} is not supported against this resource")))
        }
    }
}

/// A page of a round.
pub(crate) fn answer(call: &Call, context: &str, lines: Vec<Value>, token: &Token, more: bool) -> Answer {
    let mut page = opened(call, context, lines);
    let (name, link) = delta::link_of(call, token, more);
    page.insert(name.into(), link.into());
    one(200, &Value::Object(page))
}

/// An entry with its type, as delta has it.
pub(crate) fn typed(mut value: Value, type_name: &str) -> Value {
    value["@odata.type"] = format!("#microsoft.graph.{type_name}").into();
    value
}

/// The entry of what is gone from a collection.
pub(crate) fn removed(id: &str, type_name: &str) -> Value {
    typed(json!({"id": id, "@removed": {"reason": "deleted"}}), type_name)
}
