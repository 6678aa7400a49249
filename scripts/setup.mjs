import { install } from './tasks/install.mjs';
import { main } from './tasks/steps.mjs';

await main('setup', install);
