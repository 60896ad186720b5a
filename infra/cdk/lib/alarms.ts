import { aws_cloudwatch as cloudwatch, aws_lambda as lambda } from 'aws-cdk-lib';
import { Construct } from 'constructs';
import { Functions } from './functions';
import { Settings } from './props';
import { Store } from './store';

/** What an alarm looks at, and when it goes off: above zero once, unless it says otherwise. */
type Watch = Partial<cloudwatch.CfnAlarmProps> & { readonly alarmDescription: string };

/** Makes the alarms. */
export function alarms(scope: Construct, chosen: Settings, store: Store, functions: Functions): void {
  const alarmActions = chosen.alarmTopic === '' ? undefined : [chosen.alarmTopic];
  const make = (id: string, watch: Watch) =>
    new cloudwatch.CfnAlarm(scope, id, {
      evaluationPeriods: 1,
      threshold: 0,
      comparisonOperator: 'GreaterThanThreshold',
      treatMissingData: 'notBreaching',
      alarmActions,
      ...watch,
    });
  make('QueueAlarm', queueIsOld(store.queue.queueName));
  make('DeadLetterQueueAlarm', queueIsNotEmpty(store.deadLetterQueue.queueName));
  make('SweeperAlarm', isSilent(functions.sweeper));
  make('TableAlarm', tableIsThrottled(store.table.tableName));
  make('ApiErrorsAlarm', any('Errors', functions.api, 'The api function failed or ran out of time; its callers got a 500.'));
  make('ApiThrottlesAlarm', any('Throttles', functions.api, "The api function found no free concurrency; its callers got a 503. The account's quota may be too small."));
  make('WorkerErrorsAlarm', any('Errors', functions.worker, 'The worker function failed or ran out of time, which tasks that fail do not make it do. Its hints come again.'));
  make('WorkerThrottlesAlarm', any('Throttles', functions.worker, 'The worker function found no free concurrency. Its hints come again, ten times at most.'));
  make('DeadLetterErrorsAlarm', any('Errors', functions.deadLetter, 'The dead_letter function failed or ran out of time.'));
  make('DeadLetterThrottlesAlarm', any('Throttles', functions.deadLetter, 'The dead_letter function found no free concurrency.'));
  make('SweeperErrorsAlarm', any('Errors', functions.sweeper, 'A sweep failed or ran out of time. The next one does its work, unless it fails likewise.'));
  make('SweeperThrottlesAlarm', any('Throttles', functions.sweeper, 'A sweep found no free concurrency, or the one before it was still running.'));
}

/** Three minutes on end, because a hint that was sent with a delay is old when it first can be received, but gone at once. */
function queueIsOld(queueName: string): Watch {
  return {
    alarmDescription: 'Hints wait longer than five minutes. Workers are too few, throttled or failing.',
    namespace: 'AWS/SQS',
    metricName: 'ApproximateAgeOfOldestMessage',
    dimensions: [{ name: 'QueueName', value: queueName }],
    statistic: 'Maximum',
    period: 60,
    evaluationPeriods: 3,
    threshold: 300,
  };
}

/** Both numbers, because dead_letter takes each message out of sight now and then. */
function queueIsNotEmpty(queueName: string): Watch {
  const count = (id: string, metricName: string) =>
    part(id, 'AWS/SQS', metricName, [{ name: 'QueueName', value: queueName }], 60, 'Maximum');
  return {
    alarmDescription:
      'Ten receives of a hint came to nothing. Look at the logs of worker and dead_letter; what stays in the queue names no task.',
    metrics: [
      { id: 'messages', expression: 'visible + hidden', label: 'messages', returnData: true },
      count('visible', 'ApproximateNumberOfMessagesVisible'),
      count('hidden', 'ApproximateNumberOfMessagesNotVisible'),
    ],
  };
}

/** A function that is not invoked has no metric at all. */
function isSilent(fn: lambda.Function): Watch {
  return {
    ...any('Invocations', fn, 'No sweep was begun for three minutes. What a lost hint was for, and what is due later than in 15 minutes, waits.'),
    period: 60,
    evaluationPeriods: 3,
    threshold: 1,
    comparisonOperator: 'LessThanThreshold',
    treatMissingData: 'breaching',
  };
}

/** The table's own events and those of its indexes, which throttle the writes of the table. */
function tableIsThrottled(tableName: string): Watch {
  const table = { name: 'TableName', value: tableName };
  const index = (value: string) => [table, { name: 'GlobalSecondaryIndexName', value }];
  const events = (id: string, direction: 'Read' | 'Write', dimensions: cloudwatch.CfnAlarm.DimensionProperty[]) =>
    part(id, 'AWS/DynamoDB', `${direction}ThrottleEvents`, dimensions, 300, 'Sum');
  return {
    alarmDescription: "DynamoDB throttles. Nothing is lost, all is slower; a single hot partition, or the account's quota.",
    metrics: [
      { id: 'throttled', expression: 'SUM(FILL(METRICS(), 0))', label: 'throttled', returnData: true },
      events('tableReads', 'Read', [table]),
      events('tableWrites', 'Write', [table]),
      events('attentionReads', 'Read', index('attention')),
      events('attentionWrites', 'Write', index('attention')),
      events('recentReads', 'Read', index('recent')),
      events('recentWrites', 'Write', index('recent')),
    ],
  };
}

/** Any at all within five minutes. */
function any(metricName: string, fn: lambda.Function, alarmDescription: string): Watch {
  return {
    alarmDescription,
    namespace: 'AWS/Lambda',
    metricName,
    dimensions: [{ name: 'FunctionName', value: fn.functionName }],
    statistic: 'Sum',
    period: 300,
  };
}

/** A metric that an expression is made of. */
function part(
  id: string,
  namespace: string,
  metricName: string,
  dimensions: cloudwatch.CfnAlarm.DimensionProperty[],
  period: number,
  stat: string,
): cloudwatch.CfnAlarm.MetricDataQueryProperty {
  return { id, returnData: false, metricStat: { metric: { namespace, metricName, dimensions }, period, stat } };
}
