-- Health of a resource of Harborhook, of whatever kind: what kstatus says of it, and Suspended where that was asked for.
-- Whether deliveries succeed is no part of it, nor whether dispatchers are enough: a receiver that is down must not stop
-- a sync. The message says so.
local health = { status = "Progressing", message = "Waiting for the controller" }
local status = obj.status
if status == nil or status.observedGeneration ~= obj.metadata.generation then
  return health
end

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local function is_true(name)
  return conditions[name] ~= nil and conditions[name].status == "True"
end

local ready = conditions.Ready
if ready == nil then
  return health
end
health.message = ready.message
if is_true("Reconciling") then
  health.message = conditions.Reconciling.message
  return health
end
if is_true("Stalled") then
  health.status = "Degraded"
  health.message = conditions.Stalled.message
elseif ready.status == "True" then
  health.status = "Healthy"
  if ready.reason == "Suspended" then
    health.status = "Suspended"
    return health
  end
  for _, name in ipairs({ "Delivering", "Scaling" }) do
    local condition = conditions[name]
    if condition ~= nil and condition.status == "False" then
      health.message = condition.reason .. ": " .. condition.message
    end
  end
end
return health
