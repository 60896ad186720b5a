import { aws_cloudwatch as cloudwatch, aws_lambda as lambda, aws_sqs as sqs } from 'aws-cdk-lib';
import { Construct } from 'constructs';
import { Functions } from './functions';
import { Settings } from './props';
import { Store } from './store';

/** Metric and threshold of an alarm. Default threshold: any sum above zero in five minutes. */
type Watch = Partial<cloudwatch.CfnAlarmProps> & Pick<cloudwatch.CfnAlarmProps, 'metricName' | 'namespace' | 'dimensions'>;

/** An alarm's name, its text for the operator, and its metric. */
type Alarm = readonly [id: string, alarmDescription: string, watch: Watch];

/** Creates the alarms. */
export function alarms(scope: Construct, chosen: Settings, store: Store, functions: Functions): void {
  const all = [...ofQueues(store), ...ofTable(store), ...ofSweeps(functions), ...ofFunctions(functions)];
  for (const [id, alarmDescription, watch] of all) {
    new cloudwatch.CfnAlarm(scope, id, {
      alarmDescription,
      statistic: 'Sum',
      period: 300,
      evaluationPeriods: 1,
      threshold: 0,
      comparisonOperator: 'GreaterThanThreshold',
      treatMissingData: 'notBreaching',
      alarmActions: chosen.alarmTopic === '' ? undefined : [chosen.alarmTopic],
      ...watch,
    });
  }
}

/** QueueAlarm waits three minutes, since the age of a delayed hint includes its delay. */
function ofQueues({ queue, deadLetterQueue }: Store): Alarm[] {
  const old = { statistic: 'Maximum', period: 60, evaluationPeriods: 3, threshold: 300 };
  return [
    [
      'QueueAlarm',
      'Hints wait longer than five minutes. Workers are too few, throttled or failing.',
      { ...metric(queue, 'ApproximateAgeOfOldestMessage'), ...old },
    ],
    [
      'DeadLettersAlarm',
      'A hint was received ten times without success. Read the logs of worker and dead_letter. A message that stays in the queue names no task.',
      { ...metric(deadLetterQueue, 'NumberOfMessagesReceived'), period: 600 },
    ],
    [
      'DeadLetterQueueAlarm',
      'The dead-letter queue is not empty, and dead_letter does not receive from it.',
      { ...metric(deadLetterQueue, 'ApproximateNumberOfMessagesVisible'), statistic: 'Minimum' },
    ],
  ];
}

function metric(queue: sqs.Queue, metricName: string): Watch {
  return { namespace: 'AWS/SQS', metricName, dimensions: [{ name: 'QueueName', value: queue.queueName }] };
}

/** Alarms for the table and its indexes. A throttled index slows the table's writes. */
function ofTable({ table }: Store): Alarm[] {
  const parts = [
    ['Table', 'the table', []],
    ['SweepIndex', 'the index sweep', [{ name: 'GlobalSecondaryIndexName', value: 'sweep' }]],
    ['Recent', 'the index recent', [{ name: 'GlobalSecondaryIndexName', value: 'recent' }]],
  ] as const;
  return parts.flatMap(([id, said, index]): Alarm[] => {
    const dimensions = [{ name: 'TableName', value: table.tableName }, ...index];
    const throttled = (metricName: string): Watch => ({ namespace: 'AWS/DynamoDB', metricName, dimensions });
    return [
      [`${id}ReadsAlarm`, `Reads of ${said} are throttled. No task is lost, but all requests are slower.`, throttled('ReadThrottleEvents')],
      [`${id}WritesAlarm`, `Writes to ${said} are throttled. No task is lost, but all requests are slower.`, throttled('WriteThrottleEvents')],
    ];
  });
}

/** Missing data raises this alarm, since a function without invocations has no metrics. */
function ofSweeps({ sweeper }: Functions): Alarm[] {
  const silent = {
    period: 60,
    evaluationPeriods: 3,
    threshold: 1,
    comparisonOperator: 'LessThanThreshold',
    treatMissingData: 'breaching',
  };
  return [
    [
      'SweeperAlarm',
      'No sweep started for three minutes. Until the next one, tasks with lost hints and tasks with delays over 15 minutes wait.',
      { ...invocations(sweeper, 'Invocations'), ...silent },
    ],
  ];
}

function ofFunctions({ api, worker, deadLetter, sweeper }: Functions): Alarm[] {
  const errors = (id: string, fn: lambda.Function, said: string): Alarm =>
    [`${id}ErrorsAlarm`, said, invocations(fn, 'Errors')];
  const throttles = (id: string, fn: lambda.Function, said: string): Alarm =>
    [`${id}ThrottlesAlarm`, said, invocations(fn, 'Throttles')];
  return [
    errors('Api', api, 'The api function failed or timed out. Its clients got a 500.'),
    throttles('Api', api, "The api function was throttled. Its clients got a 503. The concurrency quota of the account may be too small."),
    errors('Worker', worker, 'The worker function failed or timed out. A failed task is not the cause. The queue delivers its hints again.'),
    throttles('Worker', worker, 'The worker function was throttled. The queue delivers its hints again, at most ten times.'),
    errors('DeadLetter', deadLetter, 'The dead_letter function failed or timed out.'),
    throttles('DeadLetter', deadLetter, 'The dead_letter function was throttled.'),
    errors('Sweeper', sweeper, 'A sweep failed or timed out. The next sweep does its work.'),
    throttles('Sweeper', sweeper, 'A sweep was throttled, for example because the previous sweep was still running.'),
  ];
}

function invocations(fn: lambda.Function, metricName: string): Watch {
  return { namespace: 'AWS/Lambda', metricName, dimensions: [{ name: 'FunctionName', value: fn.functionName }] };
}
