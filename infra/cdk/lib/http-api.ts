import { Aws, RemovalPolicy, aws_apigatewayv2 as apigateway, aws_lambda as lambda, aws_logs as logs } from 'aws-cdk-lib';
import { Construct } from 'constructs';
import { Settings } from './props';

/** Log format: one line per request. The path is without its query string, and no header is included. */
const ACCESS_LOG_FORMAT = [
  '{"requestId":"$context.requestId","time":"$context.requestTime","ip":"$context.identity.sourceIp",',
  '"method":"$context.httpMethod","path":"$context.path","protocol":"$context.protocol",',
  '"status":"$context.status","bytes":"$context.responseLength","milliseconds":"$context.responseLatency",',
  '"functionMilliseconds":"$context.integrationLatency","error":"$context.integrationErrorMessage"}',
].join(' ');

/** Creates the HTTP API, with one route that leaves all routing to the function. Returns its URL. */
export function httpApi(scope: Construct, chosen: Settings, fn: lambda.Function): string {
  const api = new apigateway.CfnApi(scope, 'Api', { name: chosen.name, protocolType: 'HTTP' });
  const integration = new apigateway.CfnIntegration(scope, 'ApiIntegration', {
    apiId: api.ref,
    integrationType: 'AWS_PROXY',
    integrationUri: fn.functionArn,
    payloadFormatVersion: '2.0',
    timeoutInMillis: 30_000,
  });
  new apigateway.CfnRoute(scope, 'ApiRoute', {
    apiId: api.ref,
    routeKey: '$default',
    target: `integrations/${integration.ref}`,
  });
  stage(scope, chosen, api);
  new lambda.CfnPermission(scope, 'ApiPermission', {
    action: 'lambda:InvokeFunction',
    functionName: fn.functionName,
    principal: 'apigateway.amazonaws.com',
    sourceArn: `arn:${Aws.PARTITION}:execute-api:${Aws.REGION}:${Aws.ACCOUNT_ID}:${api.ref}/*`,
  });
  return api.attrApiEndpoint;
}

function stage(scope: Construct, chosen: Settings, api: apigateway.CfnApi): void {
  const accessLog = new logs.LogGroup(scope, 'AccessLog', {
    logGroupName: `/aws/vendedlogs/${chosen.name}/access`,
    retention: chosen.logRetentionDays,
    removalPolicy: RemovalPolicy.DESTROY,
  });
  new apigateway.CfnStage(scope, 'ApiStage', {
    apiId: api.ref,
    stageName: '$default',
    autoDeploy: true,
    defaultRouteSettings: {
      throttlingRateLimit: chosen.throttleRate,
      throttlingBurstLimit: chosen.throttleBurst,
    },
    accessLogSettings: { destinationArn: accessLog.logGroupArn, format: ACCESS_LOG_FORMAT },
  });
}
