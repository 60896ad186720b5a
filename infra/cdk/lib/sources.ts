import { Duration, aws_lambda as lambda, aws_sqs as sqs } from 'aws-cdk-lib';
import { Construct } from 'constructs';
import { Functions } from './functions';
import { Settings } from './props';
import { Store } from './store';

/** Has Lambda receive from the queues. Not by `SqsEventSource`, which would grant more than is used. */
export function sources(scope: Construct, chosen: Settings, store: Store, functions: Functions): void {
  source(scope, 'WorkerSource', store.queue, functions.worker, chosen.maxConcurrency);
  // The least there can be: none of it is in a hurry.
  source(scope, 'DeadLetterSource', store.deadLetterQueue, functions.deadLetter, 2);
}

function source(scope: Construct, id: string, queue: sqs.Queue, target: lambda.Function, maxConcurrency: number): void {
  new lambda.EventSourceMapping(scope, id, {
    target,
    eventSourceArn: queue.queueArn,
    batchSize: 10,
    maxBatchingWindow: Duration.seconds(0),
    // Without it, one hint that failed would bring the nine that succeeded back with it.
    reportBatchItemFailures: true,
    maxConcurrency,
  });
}
