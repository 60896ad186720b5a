import { Duration, aws_lambda as lambda, aws_sqs as sqs } from 'aws-cdk-lib';
import { Construct } from 'constructs';
import { Functions } from './functions';
import { Settings } from './props';
import { Store } from './store';

/** Connects the queues to the functions. `SqsEventSource` would grant more permissions than are used. */
export function sources(scope: Construct, chosen: Settings, store: Store, functions: Functions): void {
  source(scope, 'WorkerSource', store.queue, functions.worker, chosen.maxConcurrency);
  // The minimum of Lambda, since dead letters are not urgent.
  source(scope, 'DeadLetterSource', store.deadLetterQueue, functions.deadLetter, 2);
}

function source(scope: Construct, id: string, queue: sqs.Queue, target: lambda.Function, maxConcurrency: number): void {
  new lambda.EventSourceMapping(scope, id, {
    target,
    eventSourceArn: queue.queueArn,
    batchSize: 10,
    maxBatchingWindow: Duration.seconds(0),
    // Without it, SQS would deliver a batch again if one of its ten hints failed.
    reportBatchItemFailures: true,
    maxConcurrency,
  });
}
