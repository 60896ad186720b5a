import { Duration, RemovalPolicy, aws_iam as iam, aws_lambda as lambda, aws_logs as logs } from 'aws-cdk-lib';
import { Construct } from 'constructs';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Permission, permissions } from './permissions';
import { Settings } from './props';
import { Store } from './store';

/** The four functions. */
export interface Functions {
  readonly api: lambda.Function;
  readonly worker: lambda.Function;
  readonly deadLetter: lambda.Function;
  readonly sweeper: lambda.Function;
}

/** Settings that differ between the functions. */
interface Particulars extends Omit<lambda.FunctionOptions, 'environment'> {
  /** Name of its program, of its log group, and of its role's policy. */
  readonly program: string;
  readonly allow: Permission[];
  readonly variables?: Record<string, string>;
}

/** Creates the functions, each with its own role and log group. */
export function functions(scope: Construct, chosen: Settings, store: Store): Functions {
  const allow = permissions(store);
  const reserved = (count: number) => (chosen.reserveConcurrency ? count : undefined);
  const make = (id: string, particulars: Particulars) => fn(scope, id, chosen, store, particulars);
  return {
    api: make('Api', {
      program: 'api',
      allow: allow.api,
      timeout: Duration.seconds(20),
      variables: {
        NOBAT_MAX_WAIT: '5',
        NOBAT_MAX_TIMEOUT: String(chosen.maxTaskTimeout),
        NOBAT_ALLOW_PRIVATE_NETWORKS: chosen.privateNetworks.join(','),
        NOBAT_ALLOW_FROM: chosen.allowFrom.join(','),
        NOBAT_KMS_KEY: store.secretsKey.keyArn,
      },
    }),
    worker: make('Worker', {
      program: 'worker',
      allow: allow.worker,
      timeout: Duration.seconds(chosen.timeouts.worker),
      reservedConcurrentExecutions: reserved(chosen.maxConcurrency),
      recursiveLoop: lambda.RecursiveLoop.ALLOW,
      variables: {
        NOBAT_ALLOW_PRIVATE_NETWORKS: chosen.privateNetworks.join(','),
        NOBAT_KMS_KEY: store.secretsKey.keyArn,
      },
    }),
    deadLetter: make('DeadLetter', {
      program: 'dead_letter',
      allow: allow.deadLetter,
      timeout: Duration.seconds(60),
      recursiveLoop: lambda.RecursiveLoop.ALLOW,
    }),
    sweeper: make('Sweeper', {
      program: 'sweeper',
      allow: allow.sweeper,
      timeout: Duration.seconds(50),
      reservedConcurrentExecutions: reserved(1),
      retryAttempts: 0,
      maxEventAge: Duration.seconds(60),
    }),
  };
}

function fn(scope: Construct, id: string, chosen: Settings, store: Store, particulars: Particulars): lambda.Function {
  const { program, allow, variables, ...options } = particulars;
  const logGroup = new logs.LogGroup(scope, `${id}Log`, {
    logGroupName: `/nobat/${chosen.name}/${program}`,
    retention: chosen.logRetentionDays,
    removalPolicy: RemovalPolicy.DESTROY,
  });
  return new lambda.Function(scope, `${id}Function`, {
    code: lambda.Code.fromAsset(built(chosen.code, program)),
    runtime: lambda.Runtime.PROVIDED_AL2023,
    handler: 'bootstrap',
    architecture: chosen.architecture === 'arm64' ? lambda.Architecture.ARM_64 : lambda.Architecture.X86_64,
    memorySize: 256,
    role: role(scope, id, program, [...allow, writeTo(logGroup)]),
    logGroup,
    loggingFormat: lambda.LoggingFormat.JSON,
    applicationLogLevelV2: lambda.ApplicationLogLevel.TRACE,
    environment: {
      NOBAT_TABLE: store.table.tableName,
      NOBAT_QUEUE_URL: store.queue.queueUrl,
      NOBAT_RETENTION_DAYS: String(chosen.retentionDays),
      NOBAT_LOG: chosen.logLevel,
      ...variables,
    },
    ...options,
  });
}

/** Returns the folder with the function's program. */
function built(code: string, program: string): string {
  const folder = join(code, program);
  if (!existsSync(join(folder, 'bootstrap'))) {
    throw new Error(`${folder} contains no bootstrap: build it with cargo lambda build --release --package nobat-functions --output-format binary`);
  }
  return folder;
}

/** Creates a role with exactly these permissions: no managed policy, and none of CDK's grants. */
function role(scope: Construct, id: string, program: string, allow: Permission[]): iam.Role {
  const statements = allow.map((permission) => new iam.PolicyStatement(permission));
  return new iam.Role(scope, `${id}Role`, {
    assumedBy: new iam.ServicePrincipal('lambda.amazonaws.com'),
    inlinePolicies: { [program]: new iam.PolicyDocument({ statements }) },
  });
}

function writeTo(logGroup: logs.LogGroup): Permission {
  return { actions: ['logs:CreateLogStream', 'logs:PutLogEvents'], resources: [logGroup.logGroupArn] };
}
