import { Aws, aws_iam as iam, aws_lambda as lambda, aws_scheduler as scheduler } from 'aws-cdk-lib';
import { Construct } from 'constructs';

/** Invokes the sweeper every minute. */
export function schedule(scope: Construct, sweeper: lambda.Function): void {
  const role = new iam.Role(scope, 'SweeperScheduleRole', {
    assumedBy: new iam.ServicePrincipal('scheduler.amazonaws.com', {
      conditions: { StringEquals: { 'aws:SourceAccount': Aws.ACCOUNT_ID } },
    }),
    inlinePolicies: { schedule: new iam.PolicyDocument({ statements: [mayInvoke(sweeper)] }) },
  });
  new scheduler.CfnSchedule(scope, 'SweeperSchedule', {
    description: 'Invokes the sweeper, which finds overdue tasks.',
    scheduleExpression: 'rate(1 minute)',
    flexibleTimeWindow: { mode: 'OFF' },
    state: 'ENABLED',
    target: {
      arn: sweeper.functionArn,
      roleArn: role.roleArn,
      // No retry: the next sweep, a minute later, does the work of a sweep that could not start.
      retryPolicy: { maximumRetryAttempts: 0, maximumEventAgeInSeconds: 60 },
    },
  });
}

function mayInvoke(fn: lambda.Function): iam.PolicyStatement {
  return new iam.PolicyStatement({ actions: ['lambda:InvokeFunction'], resources: [fn.functionArn] });
}
