// Properties and the settings derived from them. The defaults are those of ../template.yaml, which also gives the reasons.

/**
 * Timeout of the worker function and visibility timeout of the queue, in seconds, for each maximum timeout of a task.
 * The visibility timeout is six times the function's timeout: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
 */
const TIMEOUTS = {
  50: { worker: 60, visibility: 360 },
  110: { worker: 120, visibility: 720 },
  290: { worker: 300, visibility: 1800 },
  590: { worker: 600, visibility: 3600 },
  880: { worker: 900, visibility: 5400 },
} as const;

/** Maximum timeout of a task, in seconds. */
export type MaxTaskTimeout = keyof typeof TIMEOUTS;

/** Retention periods that CloudWatch Logs supports, in days. */
const LOG_RETENTION_DAYS = [
  1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
] as const;

/** A retention period that CloudWatch Logs supports, in days. */
export type LogRetentionDays = (typeof LOG_RETENTION_DAYS)[number];

/** Properties of a nobat installation. */
export interface NobatProps {
  /** The directory with the built functions: `api/bootstrap`, `worker/bootstrap`, `sweeper/bootstrap`, `dead_letter/bootstrap`. */
  readonly code: string;
  /** Name of the log groups and the API. Two installations in one stack need different names. @default the stack's name */
  readonly name?: string;
  /** Architecture of the functions. @default 'arm64', which costs a fifth less */
  readonly architecture?: 'arm64' | 'x86_64';
  /** Maximum timeout of a task, in seconds. @default 50 */
  readonly maxTaskTimeout?: MaxTaskTimeout;
  /** Maximum number of workers that run in parallel (2 to 1,000), each with up to ten tasks. @default 20 */
  readonly maxConcurrency?: number;
  /** True if concurrency is reserved for the worker and the sweeper. An account with a concurrency quota of 10 cannot reserve any. @default true */
  readonly reserveConcurrency?: boolean;
  /** Retention of ended tasks, in days. @default 30 */
  readonly retentionDays?: number;
  /** True if DynamoDB refuses to delete the table. The table outlives the stack in any case. @default false */
  readonly protectTable?: boolean;
  /** Private networks (CIDRs) that tasks of kind `http` may call. @default none */
  readonly privateNetworks?: readonly string[];
  /** Networks (CIDRs) whose requests the API accepts. @default all */
  readonly allowFrom?: readonly string[];
  /** Maximum rate of the API, in requests per second. Above it, the API responds with 429. @default 1000 */
  readonly throttleRate?: number;
  /** Burst of the API: capacity of its token bucket, in requests. @default 1000 */
  readonly throttleBurst?: number;
  /** Log filter of the functions, e.g. `nobat_worker=debug,info`. @default 'info' */
  readonly logLevel?: string;
  /** Retention of logs, in days. @default 30 */
  readonly logRetentionDays?: LogRetentionDays;
  /** ARN of the SNS topic that alarms are sent to. @default none: alarms are only visible in CloudWatch */
  readonly alarmTopic?: string;
}

/** The properties with their defaults, and the derived timeouts. */
export type Settings = Required<NobatProps> & {
  readonly timeouts: { readonly worker: number; readonly visibility: number };
};

/** Fills in the defaults. Rejects values that AWS would reject only during the deployment. */
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
    throw new Error(`maxTaskTimeout must be one of ${Object.keys(TIMEOUTS).join(', ')}, not ${chosen.maxTaskTimeout}`);
  }
  if (chosen.maxConcurrency < 2 || chosen.maxConcurrency > 1000) {
    throw new Error(`maxConcurrency must be from 2 to 1000, not ${chosen.maxConcurrency}`);
  }
  if (!LOG_RETENTION_DAYS.includes(chosen.logRetentionDays)) {
    throw new Error(`logRetentionDays must be one of ${LOG_RETENTION_DAYS.join(', ')}, not ${chosen.logRetentionDays}`);
  }
  return { ...chosen, timeouts };
}
