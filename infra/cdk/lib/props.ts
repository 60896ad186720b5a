// What can be chosen, and what follows from it. The defaults are those of ../template.yaml, which also gives the reasons.

/**
 * Seconds that the timeouts of the worker function and of the queue's visibility have, by the longest timeout of a task.
 * The latter is six times the former: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
 */
const TIMEOUTS = {
  50: { worker: 60, visibility: 360 },
  110: { worker: 120, visibility: 720 },
  290: { worker: 300, visibility: 1800 },
  590: { worker: 600, visibility: 3600 },
  880: { worker: 900, visibility: 5400 },
} as const;

/** The longest timeout that a task may ask for, in seconds. */
export type MaxTaskTimeout = keyof typeof TIMEOUTS;

/** The numbers of days that CloudWatch Logs can keep logs. */
const LOG_RETENTION_DAYS = [
  1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
] as const;

/** One of the numbers of days that CloudWatch Logs can keep logs. */
export type LogRetentionDays = (typeof LOG_RETENTION_DAYS)[number];

/** What can be chosen about a nobat. */
export interface NobatProps {
  /** The directory with the built functions: `api/bootstrap`, `worker/bootstrap`, `sweeper/bootstrap`, `dead_letter/bootstrap`. */
  readonly code: string;
  /** What log groups and the API are named after. Two nobats in one stack need two. @default the stack's name */
  readonly name?: string;
  /** What the functions were built for and run on. @default 'arm64', which costs a fifth less */
  readonly architecture?: 'arm64' | 'x86_64';
  /** The longest timeout of a task, in seconds. @default 50 */
  readonly maxTaskTimeout?: MaxTaskTimeout;
  /** How many workers may run at the same time (2 to 1,000), each with up to ten tasks. @default 20 */
  readonly maxConcurrency?: number;
  /** Whether the worker and the sweeper have concurrency of their own; an account with a quota of 10 has none to spare. @default true */
  readonly reserveConcurrency?: boolean;
  /** How many days an ended task is kept. @default 30 */
  readonly retentionDays?: number;
  /** Whether DynamoDB refuses to delete the table, which outlives the stack in any case. @default false */
  readonly protectTable?: boolean;
  /** Networks (CIDRs) that tasks of kind `http` may call although they are private. @default none */
  readonly privateNetworks?: readonly string[];
  /** Networks (CIDRs) from which requests are taken. @default from anywhere */
  readonly allowFrom?: readonly string[];
  /** How many requests a second the API takes before it answers 429. @default 1000 */
  readonly throttleRate?: number;
  /** How many requests more than its rate the API takes at once. @default 1000 */
  readonly throttleBurst?: number;
  /** What the functions log, e.g. `nobat_worker=debug,info`. @default 'info' */
  readonly logLevel?: string;
  /** How many days logs are kept. @default 30 */
  readonly logRetentionDays?: LogRetentionDays;
  /** ARN of the SNS topic that alarms are sent to. @default none: they can only be looked at */
  readonly alarmTopic?: string;
}

/** The properties with their defaults, and the timeouts that follow from them. */
export type Settings = Required<NobatProps> & {
  readonly timeouts: { readonly worker: number; readonly visibility: number };
};

/** Fills in the defaults; refuses what AWS would refuse only in the middle of a deployment. */
export function settings(props: NobatProps, stackName: string): Settings {
  const chosen = {
    code: props.code,
    name: props.name ?? stackName,
    architecture: props.architecture ?? 'arm64',
    maxTaskTimeout: props.maxTaskTimeout ?? 50,
    maxConcurrency: props.maxConcurrency ?? 20,
    reserveConcurrency: props.reserveConcurrency ?? true,
    retentionDays: props.retentionDays ?? 30,
    protectTable: props.protectTable ?? false,
    privateNetworks: props.privateNetworks ?? [],
    allowFrom: props.allowFrom ?? [],
    throttleRate: props.throttleRate ?? 1000,
    throttleBurst: props.throttleBurst ?? 1000,
    logLevel: props.logLevel ?? 'info',
    logRetentionDays: props.logRetentionDays ?? 30,
    alarmTopic: props.alarmTopic ?? '',
  };
  const timeouts = TIMEOUTS[chosen.maxTaskTimeout];
  if (timeouts === undefined) {
    throw new Error(`maxTaskTimeout is one of ${Object.keys(TIMEOUTS).join(', ')}, not ${chosen.maxTaskTimeout}`);
  }
  if (chosen.maxConcurrency < 2 || chosen.maxConcurrency > 1000) {
    throw new Error(`maxConcurrency is between 2 and 1000, not ${chosen.maxConcurrency}`);
  }
  if (!LOG_RETENTION_DAYS.includes(chosen.logRetentionDays)) {
    throw new Error(`logRetentionDays is one of ${LOG_RETENTION_DAYS.join(', ')}, not ${chosen.logRetentionDays}`);
  }
  return { ...chosen, timeouts };
}
