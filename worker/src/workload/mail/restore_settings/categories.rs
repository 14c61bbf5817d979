//! Categories: found by name, made where they are missing. One that is there is recoloured or left: it cannot be there twice.

use holdfast_graph_client::{GraphError, MailCategory};
use holdfast_model::ConflictPolicy;

use super::{Outcome, Run, Stored};
use crate::{
    JobError,
    workload::write_back::{CREATE_ATTEMPTS, Written},
};

/// The colour that Exchange gives where none is named.
const NO_COLOR: &str = "none";

pub(super) async fn restore<'a>(
    run: &mut Run<'_>,
    stored: impl Iterator<Item = &'a Stored<'a>>,
) -> Result<(), JobError> {
    let mut there: Option<Vec<MailCategory>> = None;
    for one in stored {
        if !run.is_in_place(one)? {
            continue;
        }
        if there.is_none() {
            there = Some(run.context.graph.mail_categories(&run.context.user).await?);
        }
        let outcome = write(run, one, there.as_deref().unwrap_or_default()).await;
        run.note(one, outcome)?;
    }
    Ok(())
}

async fn write(run: &Run<'_>, one: &Stored<'_>, there: &[MailCategory]) -> Result<Outcome, JobError> {
    let (graph, user) = (&run.context.graph, &run.context.user);
    let (name, color) = (one.text("displayName"), one.text("color"));
    let color = if color.is_empty() { NO_COLOR } else { color };
    let Some(same) = find(there, name) else { return create(run, (name, color)).await };
    match run.context.conflict {
        ConflictPolicy::Skip => Ok(Outcome::whole(Written::Skipped)),
        _ if same.color == color => Ok(Outcome::whole(Written::Before)),
        ConflictPolicy::Rename => Ok(Outcome::whole(Written::Skipped)),
        ConflictPolicy::Replace => {
            graph.recolor_mail_category(user, &same.id, color).await?;
            Ok(Outcome::whole(Written::Created))
        }
    }
}

fn find<'a>(there: &'a [MailCategory], name: &str) -> Option<&'a MailCategory> {
    there.iter().find(|one| one.display_name.to_lowercase() == name.to_lowercase())
}

/// Makes it once: an unknown outcome is looked up by its name.
async fn create(run: &Run<'_>, (name, color): (&str, &str)) -> Result<Outcome, JobError> {
    let (graph, user) = (&run.context.graph, &run.context.user);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let error = match graph.create_mail_category(user, name, color).await {
            Ok(_) => return Ok(Outcome::whole(Written::Created)),
            Err(error @ GraphError::Ambiguous { .. }) => error,
            Err(error) => return Err(error.into()),
        };
        if find(&graph.mail_categories(user).await?, name).is_some() {
            return Ok(Outcome::whole(Written::Created));
        }
        if attempt >= CREATE_ATTEMPTS {
            return Err(error.into());
        }
    }
}
