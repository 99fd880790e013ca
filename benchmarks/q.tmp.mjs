import { fork } from 'node:child_process';
import { AsyncGRPCComputeServer, AsyncLambdaComputeFunction, GRPCComputeClient, tensor } from '@splitlearn/comm';
import { PerformanceObserver } from 'node:perf_hooks';
let mc=0,sc=0; new PerformanceObserver(l=>{for(const e of l.getEntries()) e.detail.kind===1?sc++:mc++}).observe({entryTypes:['gc']});
const mem=()=>{const m=process.memoryUsage(); return `ext ${(m.external/1e6).toFixed(0)} ab ${(m.arrayBuffers/1e6).toFixed(0)} rss ${(m.rss/1e6).toFixed(0)}`};
if(process.argv[2]==='server'){ const mode=process.env.MODE; const y=tensor(new Float32Array(98304));
 const f=mode==='sink'?()=>({}):mode==='source'?()=>({y}):({input})=>({output:input});
 const s=new AsyncGRPCComputeServer({computeFn:new AsyncLambdaComputeFunction(f),port:0}); process.send(await s.start()); process.on('message',()=>{console.log('server mc',mc,'sc',sc,mem());}); process.on('disconnect',()=>process.exit()); }
else { const child=fork(new URL(import.meta.url).pathname,['server'],{execArgv:process.env.TR?process.env.TR.split(' '):[]}); const port=await new Promise(r=>child.once('message',r));
const c=new GRPCComputeClient(`127.0.0.1:${port}`); const x=process.env.MODE==='source'?tensor(1):tensor(new Float32Array(98304));
for(let i=0;i<300;i++) await c.compute({input:x}); const t=performance.now(); for(let i=0;i<1500;i++){ await c.compute({input:x}); }
console.log(process.env.MODE,((performance.now()-t)/1500).toFixed(3),'ms/call; client mc',mc,'sc',sc,mem()); child.send(1); setTimeout(()=>process.exit(),100);}
