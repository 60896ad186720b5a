//! Conversion of a provider's request into a task.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::config::kind::KindRegistry;
use crate::config::source::{Source, SourceTarget};
use crate::ports::StoreError;
use crate::service::config_cache::ConfigCache;
use crate::sources::request::InboundRequest;
use crate::submission::SubmissionContext;
use crate::submission::event::{EventContext, event_task};
use crate::submission::template::{TemplateEvent, fill};
use crate::task::{Fingerprint, Task, TaskOrigin};
use crate::types::field_error::FieldError;
use crate::types::id::TaskId;
use crate::types::name::{Name, Tenant};
use crate::types::sha256::sha256;
use crate::types::time::Timestamp;

/// Creates the tasks of sources.
#[derive(Clone, Copy)]
pub struct SourceTasks<'a> {
    /// Cached endpoints and queues.
    pub config_cache: &'a ConfigCache,
    /// Kinds that this installation runs.
    pub kinds: &'a dyn KindRegistry,
    /// Maximum timeout of an attempt.
    pub max_timeout: Duration,
    /// Tenant that owns the source.
    pub tenant: &'a Tenant,
    /// Name of the source.
    pub name: &'a Name,
    /// Maximum length of a payload in bytes, if the tenant has such a limit.
    pub max_payload: Option<NonZeroU32>,
    /// Number of tasks in the chain that led to the request.
    pub hops: u8,
    /// Current time.
    pub now: Timestamp,
}

impl SourceTasks<'_> {
    /// Returns the task of a verified request, or all errors in the template of the source. JSON pointers in
    /// the errors are relative to the template.
    ///
    /// The id of the task derives from the source and the id of the provider's event, so a repeated request
    /// has the same id. The fingerprint of the body distinguishes a repetition from another request with the
    /// same id, if the provider always repeats the same body.
    pub async fn task(
        &self,
        source: &Source,
        request: &InboundRequest<'_>,
    ) -> Result<Result<Task, Vec<FieldError>>, StoreError> {
        let (tenant, hops, now) = (self.tenant, self.hops, self.now);
        let event = source.event(self.name, request, now);
        let id = TaskId::of_webhook(tenant, self.name.as_str(), &event.id);
        let fingerprint = (!source.body_varies()).then(|| Fingerprint(sha256(&[request.body])));
        let (template, body) = match &source.target {
            SourceTarget::Event { .. } => {
                let context = EventContext { tenant, submitted_by: None, hops, now };
                let mut task = event_task(&event, Some(id), context);
                task.options.fingerprint = fingerprint;
                let max = self.max_payload.filter(|max| task.payload.get().len() > max.get() as usize);
                return Ok(max.map_or(Ok(task), |max| {
                    let detail =
                        format!("expected an event of at most {max} bytes, the limit of this tenant");
                    Err(vec![FieldError::new("", detail)])
                }));
            }
            SourceTarget::Task { template, body } => (template, *body),
        };
        let json = event.to_json();
        let submission = match fill(template, body, &TemplateEvent { event: &event, json: &json }) {
            Ok(submission) => submission,
            Err(errors) => return Ok(Err(errors)),
        };
        let config = self.config_cache.for_template(tenant, &submission).await?;
        let context = SubmissionContext {
            tenant,
            id,
            fingerprint,
            submitted_by: None,
            max_payload: self.max_payload,
            max_timeout: self.max_timeout,
            kinds: self.kinds,
            endpoint: config.endpoint.as_deref(),
            then_endpoint: config.then_endpoint.as_deref(),
            queue: config.queue(),
            hops,
            now,
        };
        Ok(submission.into_task(&context).map(|mut task| {
            task.options.origin = Some(TaskOrigin::Source { source: self.name.clone() });
            task
        }))
    }
}
