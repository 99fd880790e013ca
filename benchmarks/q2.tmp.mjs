import { fork } from 'node:child_process';
import { AsyncGRPCComputeServer, AsyncLambdaComputeFunction, GRPCComputeClient, tensor } from '@splitlearn/comm';
if(process.argv[2]==='server'){ let n=0; const out=[];
 const s=new AsyncGRPCComputeServer({computeFn:new AsyncLambdaComputeFunction(()=>{ if(++n>300&&n<360){const m=process.memoryUsage(); out.push(`${(m.arrayBuffers/1e6).toFixed(1)}/${(m.external/1e6).toFixed(1)}`);} return {}; }),port:0}); process.send(await s.start()); process.on('message',()=>console.log(out.join(' '))); process.on('disconnect',()=>process.exit()); }
else { const child=fork(new URL(import.meta.url).pathname,['server'],{execArgv:process.env.TR?process.env.TR.split(' '):[]}); const port=await new Promise(r=>child.once('message',r));
const c=new GRPCComputeClient(`127.0.0.1:${port}`); const x=tensor(new Float32Array(98304));
for(let i=0;i<400;i++) await c.compute({input:x}); child.send(1); setTimeout(()=>process.exit(),100);}
