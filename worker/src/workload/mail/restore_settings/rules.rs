//! Rules of the Inbox, with the folders that they name mapped to the target's.
//!
//! Exchange keeps no mark on a rule, so what an earlier attempt made is recognised by its name and by what it does.

use std::collections::HashSet;

use holdfast_graph_client::{GraphError, InboxRule};
use holdfast_model::ConflictPolicy;
use serde_json::{Map, Value, json};

use super::{
    Outcome, Run, Stored,
    rule_body::{NAMES_FOLDER, body, meaning, sends_mail},
};
use crate::{
    JobError,
    workload::write_back::{CREATE_ATTEMPTS, Written},
};

/// A rule that Graph may not change cannot be made either.
const READ_ONLY: &str = "ReadOnlyRule";
/// A folder that the rule names is not in the snapshot.
const FOLDER_GONE: &str = "RuleFolderGone";
/// It sends mail: it comes back switched off.
const DISABLED: &str = "RestoredDisabled";

/// Rules of the target.
#[derive(Default)]
struct There {
    rules: Vec<InboxRule>,
    /// Those that answer for a stored one already.
    taken: HashSet<String>,
}

pub(super) async fn restore<'a>(
    run: &mut Run<'_>,
    stored: impl Iterator<Item = &'a Stored<'a>>,
) -> Result<(), JobError> {
    let mut there: Option<There> = None;
    for one in stored {
        if !run.is_in_place(one)? {
            continue;
        }
        let there = match &mut there {
            Some(there) => there,
            None => {
                let rules = run.context.graph.inbox_rules(&run.context.user).await?;
                there.insert(There { rules, ..There::default() })
            }
        };
        let outcome = write(run, one, there).await;
        run.note(one, outcome)?;
    }
    Ok(())
}

async fn write(run: &mut Run<'_>, one: &Stored<'_>, there: &mut There) -> Result<Outcome, JobError> {
    if one.fields.get("isReadOnly") == Some(&json!(true)) {
        return Ok(Outcome::Done(Written::Skipped, vec![READ_ONLY.to_owned()]));
    }
    let mut body = body(&one.fields);
    if !map_folders(run, &mut body).await? {
        return Ok(Outcome::Refused(FOLDER_GONE));
    }
    let mut losses = Vec::new();
    if sends_mail(&body) && body["isEnabled"] == json!(true) {
        body.insert("isEnabled".to_owned(), json!(false));
        losses.push(DISABLED.to_owned());
    }
    let name = one.text("displayName");
    if there.take(name, Some(&body)).is_some() {
        let written = match run.context.conflict {
            ConflictPolicy::Skip => Written::Skipped,
            _ => Written::Before,
        };
        return Ok(Outcome::whole(written));
    }
    let Some(same) = there.take(name, None) else { return create(run, body, losses).await };
    match run.context.conflict {
        ConflictPolicy::Skip => Ok(Outcome::whole(Written::Skipped)),
        ConflictPolicy::Replace => {
            // What the stored one does not say is taken away.
            for part in ["conditions", "exceptions"] {
                body.entry(part).or_insert(Value::Null);
            }
            let (graph, user) = (&run.context.graph, &run.context.user);
            graph.change_inbox_rule(user, &same, &Value::Object(body)).await?;
            Ok(Outcome::Done(Written::Created, losses))
        }
        ConflictPolicy::Rename => {
            let beside = format!("{name} (restored)");
            if there.take(&beside, None).is_some() {
                return Ok(Outcome::whole(Written::Before));
            }
            body.insert("displayName".to_owned(), beside.into());
            create(run, body, losses).await
        }
    }
}

/// Puts the target's folders in place of the snapshot's; false where one is gone.
async fn map_folders(run: &mut Run<'_>, body: &mut Map<String, Value>) -> Result<bool, JobError> {
    for name in NAMES_FOLDER {
        let Some(folder) = body.get("actions").and_then(|actions| actions.get(name)?.as_str()) else {
            continue;
        };
        match run.folder(folder).await? {
            Some(id) => body["actions"][name] = id.into(),
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// Makes it once: an unknown outcome is looked up by what the rule does.
async fn create(run: &Run<'_>, body: Map<String, Value>, losses: Vec<String>) -> Result<Outcome, JobError> {
    let (graph, user) = (&run.context.graph, &run.context.user);
    let name = body.get("displayName").and_then(Value::as_str).unwrap_or_default().to_owned();
    let meant = meaning(&body);
    let body = Value::Object(body);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let error = match graph.create_inbox_rule(user, &body).await {
            Ok(_) => return Ok(Outcome::Done(Written::Created, losses)),
            Err(error @ GraphError::Ambiguous { .. }) => error,
            Err(error) => return Err(error.into()),
        };
        let rules = graph.inbox_rules(user).await?;
        if rules.iter().any(|rule| is_it(rule, &name, Some(&meant))) {
            return Ok(Outcome::Done(Written::Created, losses));
        }
        if attempt >= CREATE_ATTEMPTS {
            return Err(error.into());
        }
    }
}

impl There {
    /// The id of a rule with this name that answers for no other; `body`: only one that does the same.
    fn take(&mut self, name: &str, body: Option<&Map<String, Value>>) -> Option<String> {
        let meant = body.map(meaning);
        let free = self.rules.iter().filter(|rule| !self.taken.contains(&rule.id));
        let id = free.clone().find(|rule| is_it(rule, name, meant.as_ref()))?.id.clone();
        self.taken.insert(id.clone());
        Some(id)
    }
}

fn is_it(rule: &InboxRule, name: &str, meant: Option<&Value>) -> bool {
    let does = || rule.raw.as_object().map(meaning);
    rule.display_name == name && meant.is_none_or(|meant| does().as_ref() == Some(meant))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: &str, word: &str) -> InboxRule {
        let raw = json!({ "conditions": { "subjectContains": [word] }, "actions": { "delete": true } });
        InboxRule { id: id.into(), display_name: "R".into(), is_read_only: false, raw }
    }

    #[test]
    fn a_rule_that_is_there_answers_for_one_stored_rule() {
        let mut there = There { rules: vec![rule("1", "a"), rule("2", "b")], ..There::default() };
        let body = |word: &str| rule("", word).raw.as_object().unwrap().clone();
        assert_eq!(there.take("R", Some(&body("b"))).as_deref(), Some("2"));
        assert_eq!(there.take("R", Some(&body("b"))), None);
        assert_eq!(there.take("R", None).as_deref(), Some("1"));
        assert_eq!(there.take("R", None), None);
    }
}
